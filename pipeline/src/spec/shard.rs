//! A static share of the work: shard `index` of `of`, for processes that split a manifest among themselves without talking to each
//! other (a Slurm array, a Kubernetes indexed job).
//!
//! Results are named by contents, so shards of another number may follow: what is there is not made again.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// One share of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0 to `of` - 1.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

impl Shard {
    /// Its part of so many things in a row; the parts of all shards are all of them, each once.
    pub fn range(self, count: usize) -> Range<usize> {
        let start = |index: usize| (count as u128 * index as u128 / self.of as u128) as usize;
        start(self.index)..start(self.index + 1)
    }

    /// All shards, this one first.
    pub fn from_here(self) -> impl Iterator<Item = Self> {
        (0..self.of).map(move |n| Self { index: (self.index + n) % self.of, of: self.of })
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        let (index, of) = numbers.ok_or_else(|| "write I/N, such as 0/16".to_owned())?;
        match of {
            0 => Err("there have to be shards: N is at least 1".to_owned()),
            of if index >= of => {
                Err(format!("of {of} shards the first is 0/{of} and the last {}/{of}", of - 1))
            }
            of => Ok(Self { index, of }),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_together_everything_and_each_thing_is_in_one() {
        for (count, of) in [(10, 3), (2, 5), (0, 4), (24_000, 7), (1, 1)] {
            let all = (0..of).flat_map(|index| Shard { index, of }.range(count));
            assert!(all.eq(0..count), "{count} of {of}");
        }
    }

    #[test]
    fn a_shard_is_written_as_index_and_number() {
        assert_eq!("3/16".parse(), Ok(Shard { index: 3, of: 16 }));
        assert_eq!(Shard { index: 3, of: 16 }.to_string(), "3/16");
        assert_eq!(
            "16/16".parse::<Shard>().unwrap_err(),
            "of 16 shards the first is 0/16 and the last 15/16"
        );
        for wrong in ["", "3", "a/b", "-1/4", "1/0", "1/2/3"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_shards_follow_one() {
        let all = Shard { index: 2, of: 4 }.from_here().map(|shard| shard.index);
        assert!(all.eq([2, 3, 0, 1]));
    }
}
