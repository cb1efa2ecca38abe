//! `.mfq/checkpoint`: how the queue was left.

use crate::sealed::{seal, unseal};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Checkpoint {
    /// Grows with each one written.
    pub epoch: u64,
    /// Everything below is on stable storage.
    pub durable: u64,
    /// The queue's first offset.
    pub first: u64,
    /// Closed cleanly: the queue ends at `durable`, and nothing was written since.
    pub clean: bool,
}

impl Checkpoint {
    const MAGIC: &[u8; 8] = b"mfq-chkp";
    /// Two slots written in turn, on pages of their own, so that a torn write spares the one before.
    const SLOT_BYTES: usize = 4096;
    pub const FILE_BYTES: usize = 2 * Self::SLOT_BYTES;

    pub fn encode(&self) -> Vec<u8> {
        seal(Self::MAGIC, [self.epoch, self.durable, self.first, u64::from(self.clean)])
    }

    /// Where this one belongs in the file.
    pub fn position(&self) -> u64 {
        (self.epoch % 2) * Self::SLOT_BYTES as u64
    }

    /// The newest of the two slots.
    pub fn decode(file: &[u8]) -> Option<Checkpoint> {
        let slot = |bytes: &[u8]| {
            let [epoch, durable, first, clean] = unseal(Self::MAGIC, bytes)?;
            Some(Checkpoint { epoch, durable, first, clean: clean == 1 })
        };
        file.chunks(Self::SLOT_BYTES).filter_map(slot).max_by_key(|checkpoint| checkpoint.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_checkpoint_counts() {
        let old = Checkpoint { epoch: 4, durable: 100, first: 0, clean: true };
        let new = Checkpoint { epoch: 5, durable: 200, first: 0, clean: false };
        let mut file = vec![0; Checkpoint::FILE_BYTES];
        for checkpoint in [old, new] {
            let at = checkpoint.position() as usize;
            let bytes = checkpoint.encode();
            file[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        assert_eq!(Checkpoint::decode(&file), Some(new));
        file[new.position() as usize + 9] ^= 1;
        assert_eq!(Checkpoint::decode(&file), Some(old));
        file[old.position() as usize + 9] ^= 1;
        assert_eq!(Checkpoint::decode(&file), None);
    }
}
