//! Hashes of 64 bits that differ in few of them, found among many (multi-index hashing, Norouzi et al. 2012).
//!
//! The bits are cut into parts, each with an index of its own. Hashes within d bits of each other are within d / parts bits in at least one part,
//! so only rows that are that near in a part are compared. The more hashes there are, the fewer and wider the parts: a look-up
//! goes through a few neighbours of each part and the few hashes that share one, up to chance.

use std::collections::HashMap;

/// No further hash.
const END: u32 = u32::MAX;

#[allow(clippy::struct_field_names, reason = "the hashes are what it is named for")]
pub struct Hashes {
    distance: u32,
    hashes: Vec<u64>,
    index: Index,
}

/// By part and its bits: the last hash that has them; by part and hash: the one before.
#[derive(Default)]
struct Index {
    parts: u32,
    last: HashMap<(u32, u64), u32>,
    before: Vec<Vec<u32>>,
}

impl Hashes {
    /// For hashes that differ in at most `distance` bits.
    pub fn new(distance: u32) -> Self {
        let mut hashes = Self { distance, hashes: Vec::new(), index: Index::default() };
        hashes.rebuild();
        hashes
    }

    /// The number of parts with which a look-up has the least to do: the neighbours it tries in each part, and the hashes that each of them has
    /// by chance. It changes when the number of hashes has doubled.
    fn parts(&self) -> u32 {
        let hashes = self.hashes.len().next_power_of_two() as f64;
        let cost = |parts: u32| {
            let width = 64 / parts;
            f64::from(parts)
                * neighbours(width, self.distance / parts)
                * (1.0 + hashes / 2_f64.powi(width as i32))
        };
        (1..=self.distance + 1).min_by(|one, other| cost(*one).total_cmp(&cost(*other))).unwrap_or(1)
    }

    fn rebuild(&mut self) {
        let parts = self.parts();
        self.index = Index { parts, before: vec![Vec::new(); parts as usize], ..Index::default() };
        for number in 0..self.hashes.len() as u32 {
            self.index.add(number, self.hashes[number as usize]);
        }
    }

    pub fn push(&mut self, hash: u64) {
        let number = self.hashes.len() as u32;
        self.hashes.push(hash);
        if self.index.parts == self.parts() {
            self.index.add(number, hash);
        } else {
            self.rebuild();
        }
    }

    /// The numbers of the hashes within the distance, in no order, some more than once.
    pub fn near(&self, hash: u64) -> impl Iterator<Item = u32> {
        let parts = self.index.parts;
        let radius = self.distance / parts;
        let probes = (0..parts).flat_map(move |part| {
            let (from, to) = borders(part, parts);
            let own = bits(hash, from, to);
            masks(to - from, radius).into_iter().map(move |mask| (part, own ^ mask))
        });
        let found = probes.flat_map(move |key| self.index.chain(key));
        found.filter(move |number| (self.hashes[*number as usize] ^ hash).count_ones() <= self.distance)
    }
}

impl Index {
    fn add(&mut self, number: u32, hash: u64) {
        for part in 0..self.parts {
            let (from, to) = borders(part, self.parts);
            let before = self.last.insert((part, bits(hash, from, to)), number).unwrap_or(END);
            self.before[part as usize].push(before);
        }
    }

    fn chain(&self, key: (u32, u64)) -> impl Iterator<Item = u32> {
        let before = &self.before[key.0 as usize];
        let first = self.last.get(&key).copied();
        std::iter::successors(first, move |number| {
            Some(before[*number as usize]).filter(|number| *number != END)
        })
    }
}

/// The bits of a part, of near-equal width.
fn borders(part: u32, parts: u32) -> (u32, u32) {
    (64 * part / parts, 64 * (part + 1) / parts)
}

fn bits(hash: u64, from: u32, to: u32) -> u64 {
    let bits = hash >> from;
    if to - from == 64 { bits } else { bits & ((1 << (to - from)) - 1) }
}

/// How many numbers there are within `most` of `width` bits.
fn neighbours(width: u32, most: u32) -> f64 {
    let (mut all, mut exactly) = (1.0, 1.0);
    for n in 0..most {
        exactly *= f64::from(width.saturating_sub(n)) / f64::from(n + 1);
        all += exactly;
    }
    all
}

/// All ways to change at most `most` of `width` bits.
fn masks(width: u32, most: u32) -> Vec<u64> {
    let mut all = vec![0];
    let mut last: Vec<(u64, u32)> = vec![(0, 0)];
    for _ in 0..most {
        last = last
            .iter()
            .flat_map(|(mask, from)| (*from..width).map(move |bit| (*mask | 1_u64 << bit, bit + 1)))
            .collect();
        all.extend(last.iter().map(|(mask, _)| *mask));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Numbers that look random.
    fn numbers(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|n| {
            let mixed = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
        })
    }

    #[test]
    fn what_is_found_is_what_a_look_at_all_finds_with_any_number_of_parts() {
        for distance in [0, 3, 4, 9, 16] {
            let mut hashes = Hashes::new(distance);
            let all: Vec<u64> = numbers(9_000).collect();
            all.iter().for_each(|hash| hashes.push(*hash));
            for (n, hash) in all.iter().enumerate().step_by(97) {
                let query = hash ^ masks(64, 2)[n % 2_000];
                let near = |other: &u64| (other ^ query).count_ones() <= distance;
                let expected: BTreeSet<u32> =
                    (0..).zip(&all).filter(|(_, other)| near(other)).map(|(n, _)| n).collect();
                assert_eq!(hashes.near(query).collect::<BTreeSet<_>>(), expected, "distance {distance}");
            }
        }
    }

    #[test]
    fn a_look_up_compares_few_of_many() {
        let mut hashes = Hashes::new(4);
        numbers(300_000).for_each(|hash| hashes.push(hash));
        let compared = |hash: u64| {
            let index = &hashes.index;
            let probes = (0..index.parts).flat_map(|part| {
                let (from, to) = borders(part, index.parts);
                masks(to - from, 4 / index.parts)
                    .into_iter()
                    .map(move |mask| (part, bits(hash, from, to) ^ mask))
            });
            probes.flat_map(|key| index.chain(key)).count()
        };
        let most = numbers(300_000).step_by(30_000).map(compared).max().unwrap();
        assert!(most < 100, "{most} of 300,000 compared");
    }
}
