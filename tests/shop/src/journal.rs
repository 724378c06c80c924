//! The order journal: an order counts once it is on disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::billing::Order;

/// An append-only file of orders.
#[derive(Debug)]
pub struct Journal(Mutex<File>);

impl Journal {
    /// Starts the journal in `directory`.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory.join("orders"))?;
        Ok(Self(Mutex::new(file)))
    }

    /// Writes one order and waits until the disk has it.
    pub fn append(&self, order: &Order) -> io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(
            file,
            "{} {} {:?}",
            order.number, order.total.0, order.payment
        )?;
        file.sync_data()
    }
}
