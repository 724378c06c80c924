//! Drains the latency buckets that the programs count into.

use std::sync::atomic::Ordering;

use aya::maps::{MapData, Stack};

use super::{
    abi::{CALL_NUMBERS, ERRNO_SLOTS, PAGES_PER_SERIES, Page, SCOPES, SLOTS_PER_PAGE, Series},
    memory::ArrayMemory,
};

/// What was counted for one call number in one scope since the last drain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// The histogram scope.
    pub scope: u32,
    /// The call's number; from 512 on a 32-bit call's number plus 512.
    pub number: u32,
    /// Calls per bucket: the bucket's number (`page * 128 + index`), and how many.
    pub counts: Vec<(u16, u64)>,
    /// Failed calls per errno; 0 stands for errors beyond those that Linux defines.
    pub errors: Vec<(i32, u64)>,
    /// Calls that never returned.
    pub unfinished: u64,
}

/// Word offsets in [`Series`], which is `repr(C)`.
mod word {
    pub const DIRTY: usize = 0;
    pub const KEY: usize = 2;
    pub const UNFINISHED: usize = 3;
    pub const PAGES: usize = 4;
    pub const ERRORS: usize = PAGES + super::PAGES_PER_SERIES;
}

/// The counters in the kernel.
pub struct Counters {
    /// 32-bit elements, which the kernel lays 8 bytes apart.
    index: ArrayMemory<u64>,
    series: ArrayMemory<Series>,
    pages: ArrayMemory<Page>,
    free_series: Stack<MapData, u32>,
    free_pages: Stack<MapData, u32>,
    free_scopes: Stack<MapData, u32>,
}

/// The maps that [`Counters`] is made of.
pub(super) struct CounterMaps {
    pub index: MapData,
    pub series: (MapData, u32),
    pub pages: (MapData, u32),
    pub free_series: Stack<MapData, u32>,
    pub free_pages: Stack<MapData, u32>,
    pub free_scopes: Stack<MapData, u32>,
}

impl Counters {
    /// Maps the counters' memory, and hands out all series, pages and process scopes as free.
    pub(super) fn new(maps: CounterMaps) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut counters = Self {
            index: map_memory(&maps.index, SCOPES * CALL_NUMBERS)?,
            series: map_memory(&maps.series.0, maps.series.1)?,
            pages: map_memory(&maps.pages.0, maps.pages.1)?,
            free_series: maps.free_series,
            free_pages: maps.free_pages,
            free_scopes: maps.free_scopes,
        };
        // Index 0 means none. The lowest index is taken first.
        for index in (1..maps.series.1).rev() {
            counters.free_series.push(index, 0)?;
        }
        for index in (1..maps.pages.1).rev() {
            counters.free_pages.push(index, 0)?;
        }
        for scope in (super::Selectors::TARGETS_MAX..SCOPES).rev() {
            counters.free_scopes.push(scope, 0)?;
        }
        Ok(counters)
    }

    /// Takes what was counted since the last drain.
    pub fn drain(&self, mut take: impl FnMut(Delta)) {
        for index in 1..self.series.len() {
            let Some(dirty) = self.series.word_u64(index, word::DIRTY) else {
                break;
            };
            // The mark is taken before the counts, and set after them: nothing is missed.
            if dirty.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let dirty = dirty.swap(0, Ordering::AcqRel);
            let Some(key) = self.take_key(index) else {
                continue;
            };
            let mut delta = Delta {
                scope: key / CALL_NUMBERS,
                number: key % CALL_NUMBERS,
                ..Delta::default()
            };
            for page in (0..PAGES_PER_SERIES).filter(|page| dirty >> page & 1 != 0) {
                self.take_page(index, page, &mut delta.counts);
            }
            if dirty >> 63 != 0 {
                self.take_errors(index, &mut delta);
            }
            take(delta);
        }
    }

    fn take_key(&self, series: usize) -> Option<u32> {
        self.series
            .word_u32(series, word::KEY)?
            .load(Ordering::Relaxed)
            .checked_sub(1)
    }

    fn take_page(&self, series: usize, page: usize, counts: &mut Vec<(u16, u64)>) {
        let Some(place) = self.series.word_u32(series, word::PAGES + page) else {
            return;
        };
        let place = place.load(Ordering::Relaxed) as usize;
        if place == 0 {
            return;
        }
        for slot in 0..SLOTS_PER_PAGE {
            let Some(counter) = self.pages.word_u32(place, slot) else {
                return;
            };
            if counter.load(Ordering::Relaxed) != 0 {
                let count = counter.swap(0, Ordering::Relaxed);
                counts.push(((page * SLOTS_PER_PAGE + slot) as u16, u64::from(count)));
            }
        }
    }

    fn take_errors(&self, series: usize, delta: &mut Delta) {
        if let Some(unfinished) = self.series.word_u32(series, word::UNFINISHED) {
            delta.unfinished = u64::from(unfinished.swap(0, Ordering::Relaxed));
        }
        for errno in 0..ERRNO_SLOTS {
            if let Some(counter) = self.series.word_u32(series, word::ERRORS + errno)
                && counter.load(Ordering::Relaxed) != 0
            {
                let count = counter.swap(0, Ordering::Relaxed);
                delta.errors.push((errno as i32, u64::from(count)));
            }
        }
    }

    /// A scope for a process of its own, to be given back by [`Counters::release`]; `None` if all
    /// are taken.
    pub fn take_scope(&mut self) -> Option<u32> {
        self.free_scopes.pop(0).ok()
    }

    /// Gives a process's scope back once its process is gone and a last [`Counters::drain`] has
    /// taken its counts. A target's scope is left alone.
    pub fn release(&mut self, scope: u32) {
        if !(super::Selectors::TARGETS_MAX..SCOPES).contains(&scope) {
            return;
        }
        for number in 0..CALL_NUMBERS {
            let key = (scope * CALL_NUMBERS + number) as usize;
            let Some(entry) = self.index.word_u32(key, 0) else {
                continue;
            };
            let series = entry.swap(0, Ordering::Relaxed);
            if series != 0 {
                self.release_series(series);
            }
        }
        let _ = self.free_scopes.push(scope, 0);
    }

    fn release_series(&mut self, series: u32) {
        for page in 0..PAGES_PER_SERIES {
            if let Some(entry) = self.series.word_u32(series as usize, word::PAGES + page) {
                let place = entry.swap(0, Ordering::Relaxed);
                if place != 0 {
                    let _ = self.free_pages.push(place, 0);
                }
            }
        }
        if let Some(key) = self.series.word_u32(series as usize, word::KEY) {
            key.store(0, Ordering::Relaxed);
        }
        let _ = self.free_series.push(series, 0);
    }
}

fn map_memory<T: super::abi::Plain>(map: &MapData, length: u32) -> std::io::Result<ArrayMemory<T>> {
    use std::os::fd::AsFd as _;
    ArrayMemory::map(map.fd().as_fd(), length)
}
