//! Several devices of one machine, a rank each: the first on the trainer's own thread, the others on threads of their own.
//!
//! A thread lives as long as the training, since a device keeps memory and a queue for each thread that uses it. It does one job after
//! the other; nothing is shared but what jobs bring and answer.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use burn::tensor::Device;

use super::rank::Rank;

type Job = Box<dyn FnOnce(&mut Rank) + Send>;

/// All ranks of a training; one at least.
#[derive(Debug)]
pub(super) struct Ranks {
    pub first: Rank,
    others: Vec<Other>,
    devices: Vec<Device>,
}

/// A rank on a thread of its own, which ends when the sender is gone: with the trainer.
#[derive(Debug)]
struct Other {
    jobs: Sender<Job>,
    thread: Option<JoinHandle<()>>,
}

/// A rank whose thread ended, since its device failed.
#[derive(Debug, thiserror::Error)]
#[error("device {rank} of this training, counted from 0, gave up: {why}")]
pub(super) struct Gone {
    rank: usize,
    why: String,
}

impl Ranks {
    /// One rank.
    pub fn one(first: Rank) -> Self {
        let devices = vec![first.device()];
        Self { first, others: Vec::new(), devices }
    }

    /// Adds a rank on each of `devices`, as the first is now.
    pub fn spread(&mut self, devices: &[Device]) {
        for device in devices {
            let mut rank = self.first.on(device);
            let (sender, jobs) = mpsc::channel::<Job>();
            let thread = thread::spawn(move || jobs.into_iter().for_each(|job| job(&mut rank)));
            self.others.push(Other { jobs: sender, thread: Some(thread) });
            self.devices.push(device.clone());
        }
    }

    /// How many there are.
    pub fn world(&self) -> usize {
        1 + self.others.len()
    }

    /// Lets every rank do its job, all at once; answers in the order of ranks. There must be a job for each.
    pub fn each<R: Send + 'static, J>(&mut self, jobs: impl IntoIterator<Item = J>) -> Result<Vec<R>, Gone>
    where
        J: FnOnce(&mut Rank) -> R + Send + 'static,
    {
        let mut jobs = jobs.into_iter();
        let Some(mine) = jobs.next() else { return Ok(Vec::new()) };
        let replies: Vec<Receiver<R>> =
            self.others.iter().zip(jobs).map(|(other, job)| send(&other.jobs, job)).collect();
        let mut answers = vec![mine(&mut self.first)];
        for (number, reply) in replies.into_iter().enumerate() {
            answers.push(reply.recv().map_err(|_| self.gone(number))?);
        }
        Ok(answers)
    }

    fn gone(&mut self, other: usize) -> Gone {
        let why = self.others.get_mut(other).map(Other::why).unwrap_or_default();
        Gone { rank: other + 1, why }
    }

    /// Lets every rank do the same.
    pub fn all<R: Send + 'static>(
        &mut self,
        job: impl Fn(&mut Rank) -> R + Clone + Send + 'static,
    ) -> Result<Vec<R>, Gone> {
        self.each(vec![job; self.world()])
    }

    /// Gives all others what the first has learned.
    pub fn follow_first(&mut self) -> Result<(), Gone> {
        let jobs: Vec<_> = self
            .devices
            .iter()
            .map(|device| self.first.flat.to_device(device))
            .map(|flat| move |rank: &mut Rank| rank.take(flat))
            .collect();
        self.each(jobs).map(|_| ())
    }
}

impl Other {
    /// Why its thread, which has ended, did.
    fn why(&mut self) -> String {
        let Some(thread) = self.thread.take() else { return "it failed before".to_owned() };
        let Err(panic) = thread.join() else { return "its thread ended".to_owned() };
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("its driver panicked").to_owned()
    }
}

/// Sends a job; its answer never comes when the thread has ended.
fn send<R: Send + 'static>(
    to: &Sender<Job>,
    job: impl FnOnce(&mut Rank) -> R + Send + 'static,
) -> Receiver<R> {
    let (sender, reply) = mpsc::channel();
    // A thread that has ended drops the job, and with it the sender of its answer.
    let _ = to.send(Box::new(move |rank: &mut Rank| {
        let _ = sender.send(job(rank));
    }));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Size;
    use crate::config::{Dtype, PixelNorm};
    use crate::train::{Part, Trainer, TrainingArguments};

    #[test]
    fn answers_come_in_the_order_of_ranks_and_a_rank_that_ended_is_named() {
        let model = Size::Tiny.model(&Device::flex(), Dtype::F32);
        let arguments = TrainingArguments::default();
        let trainer = Trainer::new(model, PixelNorm::default(), arguments, &[Part::Projector], 1).unwrap();
        let mut ranks = trainer.across(&[Device::flex(), Device::flex()]).ranks;
        assert_eq!((ranks.world(), ranks.devices.len()), (3, 3));
        let jobs = [3, 1, 2].map(|number| move |_: &mut Rank| number);
        assert_eq!(ranks.each(jobs).unwrap(), [3, 1, 2]);

        let jobs = [0, 1, 2].map(|number| move |_: &mut Rank| assert_ne!(number, 1, "a driver gives up"));
        let gone = ranks.each(jobs).unwrap_err().to_string();
        assert!(gone.starts_with("device 1 of this training, counted from 0, gave up: "), "{gone}");
        assert!(gone.contains("a driver gives up"), "{gone}");
        let gone = ranks.all(|_| ()).unwrap_err().to_string();
        assert_eq!(gone, "device 1 of this training, counted from 0, gave up: it failed before");
    }
}
