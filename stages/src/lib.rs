//! The stages of LLaVM: from raw files to token shards. Each stage is one file or folder; [`registry`] lists them.

pub mod arrays;
pub mod asking;
pub mod benchmarks;
pub mod chat_template;
pub mod clean_text;
pub mod data_report;
pub mod decode_resize;
mod device;
pub mod distinct_images;
pub mod encode_images;
pub mod evaluate;
pub mod export;
pub mod facts;
pub mod filter;
mod first_seen;
pub mod image_lists;
pub mod image_pads;
pub mod language;
pub mod messages;
pub mod metrics;
pub mod model_card;
pub mod quality;
pub mod read;
pub mod row;
pub mod segments;
pub mod settings;
pub mod shapes;
pub mod shard;
pub mod shift_labels;
pub mod sql;
pub mod tokenize;
pub mod tokenizer_folder;
pub mod train;

use llavm_pipeline::registry::Registry;

/// Every kind of stage that a manifest can name.
pub fn registry() -> Registry {
    Registry::default()
        .source::<read::Read>()
        .source::<shapes::Shapes>()
        .map::<filter::Filter>()
        .map::<quality::Quality>()
        .map::<clean_text::CleanText>()
        .map::<decode_resize::DecodeResize>()
        .map::<encode_images::EncodeImages>()
        .map::<chat_template::ChatTemplate>()
        .map::<image_pads::ImagePads>()
        .map::<tokenize::Tokenize>()
        .map::<shift_labels::ShiftLabels>()
        .gather::<shard::Shard>()
        .job::<train::Train>()
        .job::<evaluate::Evaluate>()
        .job::<benchmarks::stage::AskBenchmark>()
        .job::<export::Export>()
}
