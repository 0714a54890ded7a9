//! What is asked of the model: the questions of the rows, then the same with images and with questions swapped.

use super::engine::{self, Outcome, Task};
use super::prediction::{ImageSwap, Prediction, QuestionSwap};
use super::questions::{self, Ask, Question, Tokens};
use super::scores::Scores;
use super::session::{Found, Session, code};
use super::swaps::{self, Candidate, Instead};
use super::{References, Turns};
use crate::asking::asker::Asker;
use llavm_model::message::{Json, Message};
use llavm_model::processor::{PromptError, TokenRow};
use llavm_pipeline::StageError;

/// A question that nobody has asked yet.
struct Open {
    /// The prediction whose question it takes the place of.
    at: usize,
    ask: Ask,
    /// Whether it is one of the row's own, so that the right answer is known.
    own: bool,
}

impl Session<'_> {
    /// Asks everything.
    #[tracing::instrument(level = "debug", skip_all)]
    pub fn predict(&mut self) -> Result<Found, StageError> {
        let questions = self.questions()?;
        if questions.is_empty() {
            return Err(StageError::new("no question is left to ask").help(format!(
                "Rejected: {:?}. Evaluate another `split`, or more `samples`.",
                self.rejected
            )));
        }
        self.work.set(self.done.get() + 4 * questions.len());
        let tasks = questions.iter().map(|asked| self.task(&asked.tokens, asked.row));
        let outcomes = engine::examine(&self.asker(), &tasks.collect::<Vec<_>>())?;
        let pairs = questions.iter().zip(&outcomes);
        let mut predictions: Vec<Prediction> =
            pairs.map(|(question, outcome)| self.prediction(question, outcome)).collect();
        self.swap_images(&questions, &mut predictions)?;
        self.swap_questions(&questions, &mut predictions)?;
        Ok(Found {
            scores: Scores::of(&predictions),
            rows: questions.iter().map(|question| question.row).collect(),
            predictions,
        })
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            assistant: &self.assistant,
            seen: &self.images.seen,
            max_new_tokens: self.params.generate.max_new_tokens,
            batch_size: self.params.generate.batch_size,
            kept: self.kept.as_ref(),
            done: Box::new(|pieces| self.progress(pieces)),
        }
    }

    /// A question about the images of `row`.
    fn task<'a>(&self, tokens: &'a Tokens, row: usize) -> Task<'a> {
        Task { tokens, shown: self.images.shown[row] }
    }

    /// What is asked, in the order of the rows.
    fn questions(&mut self) -> Result<Vec<Question>, StageError> {
        let questions = match self.params.turns {
            Turns::Last => self.final_questions(),
            Turns::Each => self.single_questions()?,
        };
        match self.params.references {
            References::Image => Ok(questions::grouped(questions, &self.images.shown)),
            References::Row | References::Column(_) => Ok(questions),
        }
    }

    fn final_questions(&mut self) -> Vec<Question> {
        let decode = |ids: &[u32]| self.assistant.text(ids).unwrap_or_default().trim().to_owned();
        let usable = self.rows.iter().enumerate().filter(|(at, _)| self.images.rejects[*at].is_none());
        let found: Vec<Option<Question>> = usable.map(|(at, row)| questions::last(at, row, decode)).collect();
        for _ in found.iter().filter(|question| question.is_none()) {
            self.reject(questions::NO_ANSWER);
        }
        found.into_iter().flatten().collect()
    }

    fn single_questions(&mut self) -> Result<Vec<Question>, StageError> {
        let usable = self.rows.iter().enumerate().filter(|(at, _)| self.images.rejects[*at].is_none());
        let asks: Vec<Ask> = usable.flat_map(|(at, row)| questions::asks(at, &row.turns)).collect();
        if asks.is_empty() {
            return Err(StageError::new("turns = \"each\" needs the conversations of the rows")
                .help("Let `keep` of the shard stage name `messages`."));
        }
        let mut questions = Vec::new();
        for (ask, tokens) in asks.iter().zip(self.tokens(&asks)) {
            match tokens {
                Ok(tokens) => questions.push(Question {
                    row: ask.row,
                    turn: ask.turn,
                    text: questions::shown(&ask.user),
                    reference: ask.assistant.clone(),
                    references: Vec::new(),
                    slices: questions::slices(&self.rows[ask.row], ask.turn),
                    tokens,
                }),
                Err(reason) => self.reject(&reason),
            }
        }
        Ok(questions)
    }

    fn reject(&mut self, reason: &str) {
        *self.rejected.entry(code(reason)).or_default() += 1;
    }

    /// The tokens of each question, or why it cannot be asked.
    fn tokens(&self, asks: &[Ask]) -> Vec<Result<Tokens, String>> {
        asks.iter().map(|ask| self.tokens_of(ask)).collect()
    }

    /// A question by itself, as the model's own processor asks it: the row's tools and system turns, the question, the answer.
    fn tokens_of(&self, ask: &Ask) -> Result<Tokens, String> {
        let row = &self.rows[ask.row];
        let message = |role, content| Message::new(role, content);
        let system = row.turns.iter().take_while(|turn| turn.role == "system");
        let mut messages: Vec<Message<'_>> =
            system.map(|turn| message("system", turn.content.as_str())).collect();
        messages.push(message("user", &ask.user));
        messages[0].tools = row.turns.iter().find_map(|turn| Json::parse(turn.tools.as_deref()?).ok());
        let (processor, images) = (&self.assistant.processor, row.n_images as usize);
        let no_prompt = |error: PromptError| format!("evaluate/{}: {error}", error.code());
        let prompt = processor.prompt(&messages, processor.system(), images).map_err(no_prompt)?;
        messages.push(message("assistant", &ask.assistant));
        let TokenRow { ids, train } = processor.row(&messages, images).map_err(no_prompt)?;
        Tokens::asked(&ids, &train, &prompt).ok_or_else(|| questions::NO_ANSWER.to_owned())
    }

    fn prediction(&self, question: &Question, outcome: &Outcome) -> Prediction {
        Prediction {
            id: self.rows[question.row].id.clone(),
            turn: question.turn,
            image: self.images.digest(question.row),
            question: question.text.clone(),
            reference: question.reference.clone(),
            references: question.references.clone(),
            answer: outcome.answer.clone(),
            loss: outcome.loss,
            answer_tokens: outcome.correct.len() as u32,
            correct_tokens: outcome.correct.iter().filter(|correct| **correct).count() as u32,
            image_swap: None,
            question_swap: None,
            slices: question.slices.clone(),
        }
    }

    fn candidates(&self, questions: &[Question]) -> Vec<Candidate> {
        questions.iter().map(|asked| self.candidate(asked.row, &asked.text, &asked.reference)).collect()
    }

    fn candidate(&self, row: usize, question: &str, reference: &str) -> Candidate {
        Candidate::new(row, self.images.shown[row], self.rows[row].n_images, question, reference)
    }

    /// Asks every question about an image again about another one.
    fn swap_images(&self, questions: &[Question], predictions: &mut [Prediction]) -> Result<(), StageError> {
        let partners = swaps::images(&self.candidates(questions), self.context.seed());
        let swapped = partners.iter().enumerate().filter_map(|(at, partner)| Some((at, (*partner)?)));
        let swapped: Vec<(usize, usize)> = swapped.collect();
        let task = |(at, shown): &(usize, usize)| self.task(&questions[*at].tokens, *shown);
        let outcomes = engine::examine(&self.asker(), &swapped.iter().map(task).collect::<Vec<_>>())?;
        for ((at, shown), outcome) in swapped.into_iter().zip(outcomes) {
            let id = self.rows[shown].id.clone();
            predictions[at].image_swap = Some(ImageSwap { id, answer: outcome.answer, loss: outcome.loss });
        }
        Ok(())
    }

    /// Asks something else about every image. With `turns = "each"`, a row's own questions are answered already.
    fn swap_questions(
        &self,
        questions: &[Question],
        predictions: &mut [Prediction],
    ) -> Result<(), StageError> {
        let asks = if self.params.turns == Turns::Last { self.earlier(questions) } else { Vec::new() };
        let mut candidates = self.candidates(questions);
        candidates.extend(asks.iter().map(|ask| self.candidate(ask.row, &ask.user, &ask.assistant)));
        let instead = swaps::questions(&candidates, questions.len(), self.context.seed());
        let mut open = Vec::new();
        for (at, instead) in instead.into_iter().enumerate() {
            match instead {
                Some(Instead::Own(other)) if other < questions.len() => {
                    predictions[at].question_swap = Some(QuestionSwap {
                        question: questions[other].text.clone(),
                        reference: Some(questions[other].reference.clone()),
                        answer: predictions[other].answer.clone(),
                    });
                }
                Some(Instead::Own(other)) => {
                    open.push(Open { at, ask: asks[other - questions.len()].clone(), own: true });
                }
                Some(Instead::Borrowed(other)) => {
                    let (text, answer) = match questions.get(other) {
                        Some(question) => (&question.text, &question.reference),
                        None => {
                            (&asks[other - questions.len()].user, &asks[other - questions.len()].assistant)
                        }
                    };
                    open.push(Open { at, ask: self.borrowed(questions[at].row, text, answer), own: false });
                }
                None => {}
            }
        }
        self.ask_instead(&open, predictions)
    }

    /// The questions before the final ones, each by itself.
    fn earlier(&self, questions: &[Question]) -> Vec<Ask> {
        let asks = questions.iter().flat_map(|asked| {
            let asks = questions::asks(asked.row, &self.rows[asked.row].turns);
            asks.into_iter().filter(|ask| ask.turn != asked.turn)
        });
        asks.collect()
    }

    /// A question of another row about the images of `row`, with the image where `row` has it.
    fn borrowed(&self, row: usize, question: &str, answer: &str) -> Ask {
        let pairs = questions::pairs(&self.rows[row].turns);
        let first = pairs.first().map_or("", |(question, _)| *question);
        let user = questions::placed_as(first, &questions::shown(question));
        Ask { row, turn: 0, user, assistant: answer.to_owned() }
    }

    fn ask_instead(&self, open: &[Open], predictions: &mut [Prediction]) -> Result<(), StageError> {
        let asks: Vec<Ask> = open.iter().map(|open| open.ask.clone()).collect();
        let tokens = self.tokens(&asks);
        let usable =
            open.iter().zip(&tokens).filter_map(|(open, tokens)| Some((open, tokens.as_ref().ok()?)));
        let usable: Vec<(&Open, &Tokens)> = usable.collect();
        let tasks = usable.iter().map(|(open, tokens)| self.task(tokens, open.ask.row));
        let answers = engine::answer(&self.asker(), &tasks.collect::<Vec<_>>())?;
        for ((open, _), answer) in usable.into_iter().zip(answers) {
            predictions[open.at].question_swap = Some(QuestionSwap {
                question: questions::shown(&open.ask.user),
                reference: open.own.then(|| open.ask.assistant.clone()),
                answer,
            });
        }
        Ok(())
    }
}
