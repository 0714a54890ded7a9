//! Many questions about few images: what prompts begin with is computed once.
//!
//! In: prompts, and for each a number that names its images; prompts with equal numbers show the same. Out: their answers, those
//! of [`super::generate`] up to rounding.
//!
//! One cache is filled in three passes: the words that all prompts begin with (one row), what the prompts about the same images
//! begin with (a row for each number), and the rest of every prompt. Positions are counted without padding, so padding between the
//! passes changes nothing.

use super::{GenerateError, OnToken, Options, Part, Prompt, Row, check_lengths, decode, follow, generate};
use crate::cache::KvCache;
use crate::vlm::Vlm;

/// Where the prompts are cut.
#[derive(Debug, PartialEq, Eq)]
struct Cuts {
    /// Tokens that all of them begin with; no image is among them.
    words: usize,
    /// The first prompt of each number, in order, and where what its prompts begin with ends.
    groups: Vec<(usize, usize)>,
    /// The group of each prompt.
    group_of: Vec<usize>,
}

/// The answers to `prompts`, in their order. Row `n` draws from the generator of number `first + n`.
pub fn generate_shared(
    model: &Vlm,
    prompts: &[Prompt],
    images: &[u64],
    first: u64,
    options: &Options,
    on_token: OnToken<'_>,
) -> Result<Vec<Vec<u32>>, GenerateError> {
    options.sampling.validate()?;
    check_lengths(model, prompts)?;
    let ids: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
    let cuts = Cuts::of(&ids, images, model.image_pad_id);
    let room = model.qwen.config().max_position_embeddings;
    if !cuts.saves(prompts.len()) || cuts.padded(&ids) + options.max_new_tokens > room {
        return generate(model, prompts, first, options, on_token);
    }
    let mut cache = KvCache::new();
    if cuts.words > 0 {
        follow(model, &[Part { ids: &ids[0][..cuts.words], features: None }], &mut cache)?;
    }
    if cuts.groups.iter().any(|(_, end)| *end > cuts.words) {
        cache = cache.pick(&vec![0; cuts.groups.len()]);
        let parts = cuts.groups.iter().map(|(at, end)| part(model, &prompts[*at], cuts.words, *end));
        follow(model, &parts.collect::<Vec<_>>(), &mut cache)?;
        cache = cache.pick(&cuts.group_of);
    } else {
        cache = cache.pick(&vec![0; prompts.len()]);
    }
    let rests = prompts.iter().zip(&cuts.group_of);
    let rests = rests.map(|(prompt, group)| part(model, prompt, cuts.groups[*group].1, prompt.ids.len()));
    let logits = model.qwen.logits(follow(model, &rests.collect::<Vec<_>>(), &mut cache)?);
    let rows = prompts.iter().zip(first..);
    let rows = rows.map(|(prompt, number)| Row::new(&prompt.ids, options.sampling.rng(number)));
    decode(model, &mut cache, logits, rows.collect(), options, on_token)
}

/// The tokens `start..end` of a prompt with their images; no image is cut.
fn part<'a>(model: &Vlm, prompt: &'a Prompt, start: usize, end: usize) -> Part<'a> {
    let pads = |ids: &[u32]| ids.iter().filter(|id| **id == model.image_pad_id).count();
    let features = prompt.features.as_ref().and_then(|features| {
        let patches = features.dims()[1].max(1);
        let (before, within) =
            (pads(&prompt.ids[..start]) / patches, pads(&prompt.ids[start..end]) / patches);
        (within > 0).then(|| features.clone().narrow(0, before, within))
    });
    Part { ids: &prompt.ids[start..end], features }
}

impl Cuts {
    fn of(ids: &[&[u32]], images: &[u64], pad: u32) -> Self {
        let all: Vec<usize> = (0..ids.len()).collect();
        let words = ids.first().map_or(0, |first| {
            let same = beginning(ids, &all);
            first[..same].iter().position(|id| *id == pad).unwrap_or(same)
        });
        let (mut groups, mut group_of): (Vec<Vec<usize>>, Vec<usize>) = (Vec::new(), Vec::new());
        for at in 0..ids.len() {
            let known = groups.iter().position(|rows| images.get(rows[0]) == images.get(at));
            let group = known.unwrap_or(groups.len());
            if known.is_none() {
                groups.push(Vec::new());
            }
            groups[group].push(at);
            group_of.push(group);
        }
        let cut = |rows: &Vec<usize>| {
            let same = beginning(ids, rows);
            // A prompt by itself is cut behind its images: there the others of its pass are likely to be.
            let behind = ids[rows[0]].iter().rposition(|id| *id == pad).map_or(0, |last| last + 1);
            let end = if rows.len() == 1 { behind.min(same) } else { outside(ids[rows[0]], same, pad) };
            (rows[0], end.max(words))
        };
        Self { words, groups: groups.iter().map(cut).collect(), group_of }
    }

    /// Whether anything is computed for fewer rows than there are.
    fn saves(&self, prompts: usize) -> bool {
        let shared = self.groups.len() < prompts && self.groups.iter().any(|(_, end)| *end > self.words);
        prompts > 1 && (self.words > 0 || shared)
    }

    /// Tokens of a row, padding between the passes included.
    fn padded(&self, ids: &[&[u32]]) -> usize {
        let middle = self.groups.iter().map(|(_, end)| end - self.words).max().unwrap_or(0);
        let rest = ids.iter().zip(&self.group_of).map(|(ids, group)| ids.len() - self.groups[*group].1);
        self.words + middle + rest.max().unwrap_or(0)
    }
}

/// How many tokens some prompts begin with; each keeps one behind them, since it is the last one's logits that are needed.
fn beginning(ids: &[&[u32]], rows: &[usize]) -> usize {
    let first = ids[rows[0]];
    let same = |row: &usize| first.iter().zip(ids[*row]).take_while(|(a, b)| a == b).count();
    let shortest = rows.iter().map(|row| ids[*row].len()).min().unwrap_or(0);
    rows.iter().map(same).min().unwrap_or(0).min(shortest.saturating_sub(1))
}

/// `end`, or the beginning of the image in which it lies.
fn outside(ids: &[u32], mut end: usize, pad: u32) -> usize {
    while end > 0 && ids.get(end) == Some(&pad) && ids[end - 1] == pad {
        end -= 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAD: u32 = 99;

    fn cuts(rows: &[&[u32]], images: &[u64]) -> Cuts {
        Cuts::of(rows, images, PAD)
    }

    #[test]
    fn prompts_are_cut_where_they_part_and_never_within_an_image() {
        let asked = [[1, 2, PAD, PAD, 3, 4].as_slice(), &[1, 2, PAD, PAD, 3, 5, 6], &[1, 2, PAD, PAD, 7]];
        let found = cuts(&asked, &[10, 10, 11]);
        assert_eq!(found, Cuts { words: 2, groups: vec![(0, 5), (2, 4)], group_of: vec![0, 0, 1] });
        assert_eq!((found.padded(&asked), found.saves(3)), (2 + 3 + 2, true));
        // The image behind the question: only the first words are shared.
        let behind = [[1, 2, 3, PAD, PAD, 4].as_slice(), &[1, 2, 5, PAD, PAD, 4]];
        assert_eq!(cuts(&behind, &[7, 7]).groups, [(0, 2)]);
        // The same images, but one question places them apart.
        let apart = [[1, PAD, PAD, PAD, PAD, 2].as_slice(), &[1, PAD, PAD, 3, PAD, PAD, 2]];
        assert_eq!(cuts(&apart, &[7, 7]).groups, [(0, 1)]);
        assert!(!cuts(&[&[1, 2]], &[1]).saves(1));
        assert_eq!(cuts(&[&[1, 2], &[1, 2]], &[1, 1]).groups, [(0, 1)], "a token is left of each");
    }
}
