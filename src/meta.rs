//! `.mfq/meta`: what the queue is. Written once, when it is created.

use crate::error::{Error, Result, Status};
use crate::options::{Filler, Format, MOST_FILE_BYTES};
use crate::sealed::{seal, sealed_bytes, unseal};

pub(crate) const VERSION: u64 = 1;
/// Of all machines there are.
const LEAST_PAGE_BYTES: u64 = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    pub format: Format,
    pub filler: Filler,
    pub file_bytes: u64,
    pub seed: u64,
    pub created_ms: u64,
}

impl Meta {
    const MAGIC: &[u8; 8] = b"mfq-meta";
    pub const BYTES: usize = sealed_bytes(6);

    pub fn encode(&self) -> Vec<u8> {
        let words = [VERSION, self.format as u64, self.filler as u64, self.file_bytes, self.seed, self.created_ms];
        seal(Self::MAGIC, words)
    }

    pub fn decode(bytes: &[u8]) -> Result<Meta> {
        let Some([version, format, filler, file_bytes, seed, created_ms]) = unseal(Self::MAGIC, bytes) else {
            return Err(Error::new(Status::Corrupt, "its checksum or length is wrong"));
        };
        let (format, filler) = match (version, format, filler) {
            (VERSION, 0, 0) => (Format::Record, Filler::Zero),
            (VERSION, 1, 0) => (Format::Raw, Filler::Zero),
            (VERSION, 1, 1) => (Format::Raw, Filler::RocketMq),
            _ => {
                let message = format!("version {version}, format {format}, filler {filler} are not known here");
                return Err(Error::new(Status::Version, message));
            }
        };
        if file_bytes == 0 || file_bytes > MOST_FILE_BYTES || !file_bytes.is_multiple_of(LEAST_PAGE_BYTES) {
            return Err(Error::new(Status::Corrupt, format!("a file size of {file_bytes} cannot be")));
        }
        Ok(Meta { format, filler, file_bytes, seed, created_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_round_trips_and_notices_every_flipped_bit() {
        let meta =
            Meta { format: Format::Raw, filler: Filler::RocketMq, file_bytes: 4096, seed: 7, created_ms: 1_700_000 };
        let bytes = meta.encode();
        assert_eq!(bytes.len(), Meta::BYTES);
        assert_eq!(Meta::decode(&bytes).unwrap(), meta);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Meta::decode(&damaged).unwrap_err().status(), Status::Corrupt);
        }
        assert_eq!(Meta::decode(&bytes[..20]).unwrap_err().status(), Status::Corrupt);
    }

    #[test]
    fn a_meta_of_the_future_is_a_version_error() {
        let bytes = seal(Meta::MAGIC, [VERSION + 1, 0, 0, 4096, 7, 0]);
        assert_eq!(Meta::decode(&bytes).unwrap_err().status(), Status::Version);
    }
}
