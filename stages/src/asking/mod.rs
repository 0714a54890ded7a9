//! Questions put to a model, whoever puts them: `evaluate`, `benchmark`, and `train` between its steps.
//!
//! | file | what |
//! |---|---|
//! | `asker.rs` | batches by length; questions about one image share its features and what they begin with |
//! | `seen.rs` | the images of questions, by number |
//! | `kept.rs` | answers by model, question and settings, so that nothing is asked twice |

pub mod asker;
pub mod kept;
pub mod seen;
