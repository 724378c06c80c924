//! The goods, in a file, and the page templates, most of which nobody installed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Every so many reads meet the cold shelf.
const COLD_EVERY: u64 = 12;
/// How much longer the cold shelf takes.
const COLD: Duration = Duration::from_millis(120);
const PRODUCTS: u64 = 5_000;

/// The goods of the shop.
#[derive(Debug)]
pub struct Catalog {
    goods: PathBuf,
    templates: PathBuf,
    reads: AtomicU64,
}

impl Catalog {
    /// Writes the list of goods into `directory`.
    pub fn stock(directory: &Path) -> io::Result<Self> {
        let goods = directory.join("goods.csv");
        let mut file = BufWriter::new(File::create(&goods)?);
        for number in 1..=PRODUCTS {
            writeln!(file, "{number},product {number},{}", price(number))?;
        }
        file.flush()?;
        let templates = directory.join("templates");
        fs::create_dir(&templates)?;
        Ok(Self {
            goods,
            templates,
            reads: AtomicU64::new(0),
        })
    }

    /// Reads the whole list from disk; blocks, and now and then for long.
    pub fn read(&self) -> io::Result<usize> {
        if self.reads.fetch_add(1, Ordering::Relaxed) % COLD_EVERY == COLD_EVERY - 1 {
            thread::sleep(COLD);
        }
        let mut file = File::open(&self.goods)?;
        let mut chunk = [0; 4096];
        let mut lines = 0;
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(lines),
                length => lines += chunk.iter().take(length).filter(|&&b| b == b'\n').count(),
            }
        }
    }

    /// The page template for the cart in `language`, or the built-in one when there is none, as is
    /// always the case: each call fails to open a file.
    pub fn cart_template(&self, language: &str) -> String {
        fs::read_to_string(self.templates.join(format!("cart.{language}.html")))
            .unwrap_or_else(|_| "<h1>Your cart</h1>".to_owned())
    }
}

/// The price in cents of one product.
pub fn price(number: u64) -> u64 {
    499 + number % 40 * 50
}
