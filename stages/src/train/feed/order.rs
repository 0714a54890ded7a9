//! The order in which rows are trained on: a function of seed, epoch and the shards alone.
//!
//! The rows of a folder of shards are shuffled among each other; folders follow one another, in the first epoch as they
//! were numbered (so that training can begin with the first while the others are being made), later in random order. What
//! is so lined up is cut into windows; in a window, rows of like length are batched together, and the batches are shuffled.
//! A batch may hold the end of one folder and the beginning of the next.
//!
//! Several rows packed into one sequence were weighed against that, with lengths drawn from 401 captions of people (COCO) and from the
//! 90 questions and answers that LLaVA published of the three kinds of LLaVA-Instruct (58:23:77, two to five turns where it is
//! a conversation), in Qwen3's tokens, 65,536 rows each. Share of all places that hold padding:
//!
//! | rows | tokens, 5% to 95% | rows of a batch | in any order | of like length | of that, up to a multiple of 8 |
//! |---|---|---|---|---|---|
//! | captions, 49 patches | 95 to 104 | 8 | 7.5% | 4.0% | 3.9% |
//! | captions, 576 patches | 622 to 632 | 8 | 1.3% | 0.6% | 0.6% |
//! | instructions, 49 patches | 130 to 266 | 4 | 19.0% | 1.8% | 1.8% |
//! | instructions, 576 patches | 657 to 793 | 4 | 6.0% | 0.5% | 0.5% |
//! | half and half, 49 patches | 96 to 254 | 8 | 38.3% | 2.8% | 2.5% |
//!
//! Where like lengths are together, packing could win 0.3% at most, and would cost attention a mask: there is none.

use super::shards::Units;
use llavm_pipeline::StageError;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Optimiser steps whose rows are sorted by length together. Where a batch is cut by tokens, as many rows as fill those steps: windows
/// of few batches would leave one in each that is not full.
const WINDOW: usize = 64;

/// A row of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRef {
    pub unit: u32,
    pub row: u32,
    /// Tokens.
    pub length: u32,
}

/// The rows of one optimiser step, micro-batch by micro-batch.
pub type StepRows = Vec<Vec<RowRef>>;

/// How rows are put together.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Rows of a micro-batch.
    pub rows: usize,
    /// Padded tokens of a micro-batch, instead.
    pub tokens: Option<usize>,
    /// Micro-batches of a step.
    pub accumulation: usize,
    pub by_length: bool,
}

impl Batching {
    /// The length to which a batch with a row of `length` tokens is padded.
    pub fn padded(length: usize) -> usize {
        length.next_multiple_of(8)
    }

    /// Micro-batches of `rows`, in their order.
    fn cut(self, rows: &[RowRef]) -> Vec<Vec<RowRef>> {
        let mut batches: Vec<Vec<RowRef>> = Vec::new();
        let (mut current, mut longest) = (Vec::new(), 0);
        for row in rows {
            let longer = longest.max(Self::padded(row.length as usize));
            let full = match self.tokens {
                Some(tokens) => longer * (current.len() + 1) > tokens,
                None => current.len() == self.rows,
            };
            if full && !current.is_empty() {
                batches.push(std::mem::take(&mut current));
                longest = 0;
            }
            longest = longest.max(Self::padded(row.length as usize));
            current.push(*row);
        }
        if !current.is_empty() {
            batches.push(current);
        }
        batches
    }

    /// How many of the rows in line are looked at together, a whole number of steps where rows are counted; `None` where they are too
    /// few for a window.
    fn window(self, waiting: &[RowRef]) -> Option<usize> {
        let batches = WINDOW * self.accumulation;
        let Some(tokens) = self.tokens else {
            let rows = batches * self.rows;
            return (waiting.len() >= rows).then_some(rows);
        };
        let mut total = 0;
        let full = waiting.iter().position(|row| {
            total += Self::padded(row.length as usize);
            total >= batches * tokens
        });
        full.map(|last| last + 1)
    }

    /// As [`Batching::of_window`], for a window that others follow: where tokens are counted, the rows of the batch that may not
    /// be full are given back, to be looked at with the next.
    fn of_full_window(
        self,
        mut window: Vec<RowRef>,
        random: &mut ChaCha8Rng,
    ) -> (Vec<Vec<RowRef>>, Vec<RowRef>) {
        if self.tokens.is_none() {
            return (self.of_window(window, random), Vec::new());
        }
        window.sort_by_key(|row| row.length);
        let mut batches = self.cut(&window);
        let left = if batches.len() > 1 { batches.pop() } else { None };
        shuffle(&mut batches, random);
        (batches, left.unwrap_or_default())
    }

    /// The batches of a window, the first one last: of like lengths and shuffled, or in the order of the rows.
    fn of_window(self, mut window: Vec<RowRef>, random: &mut ChaCha8Rng) -> Vec<Vec<RowRef>> {
        if !self.by_length && self.tokens.is_none() {
            let mut batches = self.cut(&window);
            batches.reverse();
            return batches;
        }
        window.sort_by_key(|row| row.length);
        let mut batches = self.cut(&window);
        shuffle(&mut batches, random);
        batches
    }

    /// Measurements: like lengths together, in order.
    pub fn for_validation(self, mut rows: Vec<RowRef>) -> Vec<StepRows> {
        rows.sort_by_key(|row| row.length);
        self.cut(&rows).into_iter().map(|batch| vec![batch]).collect()
    }
}

/// The steps of a training, epoch after epoch without end.
pub struct Order<'a> {
    units: &'a Units<'a>,
    batching: Batching,
    seed: u64,
    epoch: u64,
    /// Folders of this epoch that are not in `waiting` yet, the next one last; `None` in the first epoch.
    left: Option<Vec<u32>>,
    next_unit: usize,
    /// Rows in line.
    waiting: Vec<RowRef>,
    /// Batches in line, the next one last.
    batches: Vec<Vec<RowRef>>,
    random: ChaCha8Rng,
    /// Steps given in this epoch, to see that there are any.
    given: u64,
}

impl<'a> Order<'a> {
    pub fn new(units: &'a Units<'a>, batching: Batching, seed: u64) -> Self {
        Self {
            units,
            batching,
            seed,
            epoch: 0,
            left: None,
            next_unit: 0,
            waiting: Vec::new(),
            batches: Vec::new(),
            random: generator(seed, 0),
            given: 0,
        }
    }

    /// The next step; `None` when there are no rows at all.
    pub fn next_step(&mut self) -> Result<Option<StepRows>, StageError> {
        loop {
            if let Some(step) = self.next_in_epoch()? {
                self.given += 1;
                return Ok(Some(step));
            }
            if self.given == 0 {
                return Ok(None);
            }
            self.begin_epoch(self.epoch + 1)?;
        }
    }

    /// Steps of the first epoch, for which all folders must be there.
    pub fn steps_per_epoch(&self) -> Result<u64, StageError> {
        let mut order = Order::new(self.units, self.batching, self.seed);
        let mut steps = 0;
        while order.next_in_epoch()?.is_some() {
            steps += 1;
        }
        Ok(steps)
    }

    fn begin_epoch(&mut self, epoch: u64) -> Result<(), StageError> {
        self.random = generator(self.seed, epoch);
        let mut left: Vec<u32> = (0..self.units.all()?.len() as u32).collect();
        shuffle(&mut left, &mut self.random);
        (self.epoch, self.left, self.given) = (epoch, Some(left), 0);
        Ok(())
    }

    fn next_in_epoch(&mut self) -> Result<Option<StepRows>, StageError> {
        let mut step = Vec::new();
        while step.len() < self.batching.accumulation {
            if self.batches.is_empty() && !self.fill()? {
                break;
            }
            step.extend(self.batches.pop());
        }
        Ok((!step.is_empty()).then_some(step))
    }

    /// Makes batches of the next window; false at the end of the epoch.
    fn fill(&mut self) -> Result<bool, StageError> {
        let size = loop {
            let size = self.batching.window(&self.waiting);
            if size.is_some() || !self.queue_unit()? {
                break size;
            }
        };
        if let Some(size) = size {
            let rest = self.waiting.split_off(size);
            let window = std::mem::replace(&mut self.waiting, rest);
            let (batches, left) = self.batching.of_full_window(window, &mut self.random);
            self.batches = batches;
            self.waiting.splice(0..0, left);
        } else {
            let window = std::mem::take(&mut self.waiting);
            self.batches = self.batching.of_window(window, &mut self.random);
        }
        Ok(!self.batches.is_empty())
    }

    /// Lines up the rows of the next folder; false when there is none.
    fn queue_unit(&mut self) -> Result<bool, StageError> {
        let number = match &mut self.left {
            None => {
                self.next_unit += 1;
                Some(self.next_unit as u32 - 1)
            }
            Some(left) => left.pop(),
        };
        let Some(number) = number else { return Ok(false) };
        let Some(unit) = self.units.get(number as usize)? else { return Ok(false) };
        let lengths = (0..).zip(unit.train.lengths()?);
        let mut rows: Vec<RowRef> =
            lengths.map(|(row, length)| RowRef { unit: number, row, length }).collect();
        shuffle(&mut rows, &mut self.random);
        self.waiting.extend(rows);
        Ok(true)
    }
}

/// The random numbers of one epoch.
fn generator(seed: u64, epoch: u64) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"order of training rows").update(&seed.to_le_bytes()).update(&epoch.to_le_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// Fisher and Yates, with our own draw: another version of a crate must not change the order.
fn shuffle<T>(items: &mut [T], random: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        let draw = u128::from(random.next_u64()) * (last as u128 + 1);
        items.swap(last, (draw >> 64) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(lengths: &[u32]) -> Vec<RowRef> {
        (0..).zip(lengths).map(|(row, length)| RowRef { unit: 0, row, length: *length }).collect()
    }

    fn batching(rows: usize, tokens: Option<usize>) -> Batching {
        Batching { rows, tokens, accumulation: 1, by_length: true }
    }

    fn lengths(batches: &[Vec<RowRef>]) -> Vec<Vec<u32>> {
        batches.iter().map(|batch| batch.iter().map(|row| row.length).collect()).collect()
    }

    #[test]
    fn a_batch_has_so_many_rows_or_so_many_padded_tokens() {
        let rows = rows(&[3, 8, 9, 20, 40]);
        assert_eq!(lengths(&batching(2, None).cut(&rows)), [vec![3, 8], vec![9, 20], vec![40]]);
        assert_eq!(lengths(&batching(2, Some(32)).cut(&rows)), [vec![3, 8], vec![9], vec![20], vec![40]]);
    }

    #[test]
    fn a_row_longer_than_the_budget_is_a_batch_of_its_own() {
        assert_eq!(lengths(&batching(1, Some(8)).cut(&rows(&[30, 2]))), [vec![30], vec![2]]);
    }

    /// Places of a window's batches that hold padding.
    fn padding(batches: &[Vec<RowRef>]) -> u32 {
        let of = |batch: &Vec<RowRef>| {
            let longest = batch.iter().map(|row| row.length).max().unwrap();
            batch.iter().map(|row| Batching::padded(longest as usize) as u32 - row.length).sum::<u32>()
        };
        batches.iter().map(of).sum()
    }

    #[test]
    fn rows_of_like_length_together_need_little_padding_and_come_in_random_order() {
        let window: Vec<RowRef> = rows(&(0..256).map(|n| 40 + n * 97 % 80).collect::<Vec<u32>>());
        let of = |by_length, seed| {
            let batching = Batching { by_length, ..batching(4, None) };
            batching.of_window(window.clone(), &mut generator(seed, 0))
        };
        let mut plain = of(false, 1);
        assert!(5 * padding(&of(true, 1)) < padding(&plain));
        assert_ne!(of(true, 1), of(true, 2));
        let mut seen = of(true, 1).concat();
        seen.sort_by_key(|row| row.row);
        assert_eq!(seen, window);
        plain.reverse();
        assert_eq!(plain.concat(), window, "without, rows keep their order");
    }

    #[test]
    fn batches_cut_by_tokens_are_full_whatever_the_rows_of_a_step() {
        let batching = batching(1, Some(4096));
        let mut waiting = rows(&(0..6000).map(|n| 40 + n * 97 % 80).collect::<Vec<u32>>());
        let (mut seen, mut random) = (Vec::new(), generator(1, 0));
        while let Some(size) = batching.window(&waiting) {
            let rest = waiting.split_off(size);
            let (batches, left) = batching.of_full_window(std::mem::replace(&mut waiting, rest), &mut random);
            assert!(batches.len() >= WINDOW - 2, "{} batches", batches.len());
            for batch in &batches {
                let longest = Batching::padded(batch.iter().map(|row| row.length).max().unwrap() as usize);
                assert!(
                    (4096 - 2 * 120..=4096).contains(&(longest * batch.len())),
                    "{} x {longest}",
                    batch.len()
                );
            }
            seen.extend(batches.concat());
            waiting.splice(0..0, left);
        }
        seen.extend(waiting);
        seen.sort_by_key(|row| row.row);
        assert_eq!(seen.len(), 6000);
        assert!(seen.windows(2).all(|pair| pair[0].row < pair[1].row), "each row once");
    }

    #[test]
    fn a_shuffle_holds_each_item_once_and_depends_on_seed_and_epoch() {
        let draw = |seed, epoch| {
            let mut items: Vec<u32> = (0..100).collect();
            shuffle(&mut items, &mut generator(seed, epoch));
            items
        };
        let mut sorted = draw(1, 0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<u32>>());
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
    }
}
