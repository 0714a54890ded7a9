//! The sum of all ranks' gradients, given to all ranks.
//!
//! It goes through the host's memory, in the order of ranks: as many ranks give the same bits each time, on any devices. Burn 0.22 has
//! NCCL for CUDA devices of one process (`burn::tensor::distributed::all_reduce`), which would take this function's place there; it
//! panics or hangs where the library or a peer is missing, and is not used before a machine with several GPUs has run it.

use burn::tensor::{DType, Tensor, TensorData};

use super::flat::{Lined, LinedUp};
use super::rank::Rank;
use super::ranks::{Gone, Ranks};
use crate::kernels;

/// Which parameters of a bucket have a gradient; `None` where none has.
type Present = Option<Vec<bool>>;

/// Gradients and which of them are there, on the host.
type OnHost = (Vec<Option<Vec<f32>>>, Vec<Present>);

/// Replaces every rank's gradients by the sum of all.
pub(super) fn all_reduce(ranks: &mut Ranks) -> Result<(), String> {
    let text = |gone: Gone| gone.to_string();
    let fetched = ranks.all(fetch).map_err(text)?.into_iter().collect::<Result<Vec<OnHost>, String>>()?;
    let Some((sum, present)) = fetched.into_iter().reduce(add) else { return Ok(()) };
    ranks.all(move |rank: &mut Rank| put(rank, &sum, &present)).map_err(text)?;
    Ok(())
}

fn fetch(rank: &mut Rank) -> Result<OnHost, String> {
    let present = present(rank);
    let read = |lined: Lined| lined.values.try_into_vec_as::<f32>().map_err(|error| error.to_string());
    let gradients = std::mem::take(&mut rank.gradients).into_iter();
    let values = gradients.map(|lined| lined.map(read).transpose());
    Ok((values.collect::<Result<_, _>>()?, present))
}

fn add((sums, present): OnHost, (more, also): OnHost) -> OnHost {
    let add = |(sum, more): (Option<Vec<f32>>, Option<Vec<f32>>)| match (sum, more) {
        (Some(mut sum), Some(more)) => {
            kernels::add(&mut sum, &more);
            Some(sum)
        }
        (one, other) => one.or(other),
    };
    (sums.into_iter().zip(more).map(add).collect(), either(present, also))
}

fn put(rank: &mut Rank, sums: &[Option<Vec<f32>>], present: &[Present]) {
    let device = rank.device();
    let put = |(sum, present): (&Option<Vec<f32>>, &Present)| {
        let sum = sum.clone()?;
        let length = sum.len();
        let data = TensorData::new(sum, [length]);
        Some(Lined { values: Tensor::from_data(data, (&device, DType::F32)), present: present.clone()? })
    };
    let gradients: LinedUp = sums.iter().zip(present).map(put).collect();
    rank.gradients = gradients;
}

/// Which parameters of each bucket have a gradient here.
fn present(rank: &mut Rank) -> Vec<Present> {
    rank.gradients.iter().map(|lined| lined.as_ref().map(|lined| lined.present.clone())).collect()
}

fn either(one: Vec<Present>, other: Vec<Present>) -> Vec<Present> {
    let either = |(one, other): (Present, Present)| match (one, other) {
        (Some(one), Some(other)) => {
            Some(one.into_iter().zip(other).map(|(one, other)| one || other).collect())
        }
        (one, other) => one.or(other),
    };
    one.into_iter().zip(other).map(either).collect()
}
