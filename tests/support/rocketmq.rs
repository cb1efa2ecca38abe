//! RocketMQ's messages as its broker writes them, and the library's walker over them.

use mfq::Walk;
use mfq::capi::mfq_walk_rocketmq;
use std::ptr;
use std::sync::Arc;

/// Without a body.
pub const LEAST_BYTES: usize = 91;

/// A message as RocketMQ lays it out, without topic and properties.
pub fn message(body: &[u8]) -> Vec<u8> {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, body) as u32 & 0x7FFF_FFFF;
    let mut bytes = [0; 88];
    bytes[..4].copy_from_slice(&((LEAST_BYTES + body.len()) as u32).to_be_bytes());
    bytes[4..8].copy_from_slice(&0xDAA3_20A7u32.to_be_bytes());
    bytes[8..12].copy_from_slice(&crc.to_be_bytes());
    bytes[84..].copy_from_slice(&(body.len() as u32).to_be_bytes());
    [&bytes[..], body, &[0; 3]].concat()
}

pub fn walk() -> Walk {
    // SAFETY: the library says that so many bytes can be read.
    Walk(Arc::new(|bytes, available| unsafe { mfq_walk_rocketmq(ptr::null_mut(), bytes, available) }))
}
