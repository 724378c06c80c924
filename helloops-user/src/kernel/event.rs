//! Reads the ring buffer of events.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};

use super::{
    abi::{EventKind, ExecEvent, ExitEvent, FaultEvent, ForkEvent, Header, StackEvent, TextEvent},
    plain::from_bytes,
};

/// What the kernel side reports.
#[derive(Debug, Clone)]
pub enum Observation {
    /// A process of a target runs a new program.
    Exec(Box<ExecEvent>),
    /// A process of a target has a child, which is watched as well.
    Fork(ForkEvent),
    /// A process of a target ended.
    Exit(Box<ExitEvent>),
    /// A site was hit, or a signal is about to end a process.
    Fault(Box<FaultEvent>),
    /// The message of an earlier fault.
    Text(Box<TextEvent>),
    /// A piece of the stack of an earlier fault.
    Stack {
        /// Whose.
        header: Header,
        /// The fault's number.
        id: u64,
        /// The address of the first byte.
        address: u64,
        /// The memory.
        bytes: Vec<u8>,
        /// Whether no more pieces follow.
        last: bool,
    },
}

impl Observation {
    /// Decodes a record; `None` if it is none of ours.
    fn decode(record: &[u8]) -> Option<Self> {
        let kind = from_bytes::<Header>(record)?.kind;
        if kind == EventKind::Exec as u32 {
            from_bytes::<ExecEvent>(record).map(|event| Self::Exec(Box::new(event)))
        } else if kind == EventKind::Fork as u32 {
            from_bytes(record).map(Self::Fork)
        } else if kind == EventKind::Exit as u32 {
            from_bytes::<ExitEvent>(record).map(|event| Self::Exit(Box::new(event)))
        } else if kind == EventKind::Fault as u32 {
            from_bytes::<FaultEvent>(record).map(|event| Self::Fault(Box::new(event)))
        } else if kind == EventKind::Text as u32 {
            from_bytes::<TextEvent>(record).map(|event| Self::Text(Box::new(event)))
        } else if kind == EventKind::Stack as u32 {
            let event = from_bytes::<StackEvent>(record)?;
            Some(Self::Stack {
                header: event.header,
                id: event.id,
                address: event.address,
                bytes: event.bytes.get(..event.length as usize)?.to_vec(),
                last: event.last != 0,
            })
        } else {
            None
        }
    }
}

/// The reading end of the ring buffer.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// The next event, if there is one now.
    pub fn next_event(&mut self) -> Option<Observation> {
        while let Some(record) = self.ring.next() {
            if let Some(observation) = Observation::decode(&record) {
                return Some(observation);
            }
            log::warn!(
                "a record of {} bytes in the ring buffer is unknown",
                record.len()
            );
        }
        None
    }
}

impl AsFd for Events {
    /// Readable when there are events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
