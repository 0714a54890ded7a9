//! Caches of finished answers, for the next turn of their conversation and for others that begin alike.
//!
//! A request takes the longest beginning that it shares with any of them. Where it goes on from all of one (the next turn of a
//! chat), that one is taken out and comes back longer; otherwise the shared part is copied. The least recently used go first
//! when memory is wanted.

use super::request::ImageName;
use crate::cache::KvCache;
use crate::generate::past::Past;

#[derive(Debug)]
struct Entry {
    past: Past<ImageName>,
    cache: KvCache,
    /// When it was last used.
    used: u64,
}

/// The caches kept.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    entries: Vec<Entry>,
    clock: u64,
}

impl Prefixes {
    /// A cache of what `prompt` begins with, and how many tokens are in it; none of its last token.
    pub fn take(&mut self, prompt: &Past<ImageName>) -> (KvCache, usize) {
        let shared = self.entries.iter().map(|entry| entry.past.shared(prompt)).enumerate();
        let best = shared.max_by_key(|(_, shared)| *shared).filter(|(_, shared)| *shared > 0);
        let Some((at, shared)) = best else { return (KvCache::new(), 0) };
        self.clock += 1;
        match self.entries.get_mut(at) {
            Some(entry) if shared < entry.past.tokens() => {
                entry.used = self.clock;
                (entry.cache.prefix(shared), shared)
            }
            Some(_) => (self.entries.swap_remove(at).cache, shared),
            None => (KvCache::new(), 0),
        }
    }

    /// Keeps a cache that holds `past`; those that it contains are of no more use.
    pub fn put(&mut self, past: Past<ImageName>, cache: KvCache) {
        if past.tokens() == 0 {
            return;
        }
        self.clock += 1;
        let contained = |old: &Past<ImageName>| {
            old.tokens() <= past.tokens() && old.shared(&past) == old.tokens().min(past.tokens() - 1)
        };
        self.entries.retain(|entry| !contained(&entry.past));
        self.entries.push(Entry { past, cache, used: self.clock });
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.cache.bytes()).sum()
    }

    /// Forgets the least recently used until at most `bytes` are held.
    pub fn shrink(&mut self, bytes: usize) {
        while self.bytes() > bytes {
            let oldest = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.used);
            let Some((oldest, _)) = oldest else { return };
            self.entries.swap_remove(oldest);
        }
    }
}
