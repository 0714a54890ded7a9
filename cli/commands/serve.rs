//! `llavm serve`: a trained model over HTTP, and a page to talk with it.

use crate::commands::model::{AnswerArgs, ModelArgs, failed};
use crate::ui::failure::{Failure, Outcome};
use crate::ui::interrupt;
use crate::ui::output::{note, print};
use llavm_model::generate::batch::Limits;
use llavm_serve::{Defaults, ServeError, Server, Settings};
use std::net::IpAddr;

/// Serve a trained model: an OpenAI-compatible API, and a page to talk with it
///
/// Requests are answered together and join between two tokens of the others. The options of answers count where a request
/// says nothing.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    answer: AnswerArgs,

    /// Where to listen; 0.0.0.0 for every address of this machine
    #[arg(long, default_value = "127.0.0.1", value_name = "HOST")]
    host: String,

    /// The port; 0 takes a free one
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    port: u16,

    /// What the model is called [default: the manifest's or folder's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// A key, one of which every request must have; may be repeated. The variable `LLAVM_API_KEY` holds one too
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,

    /// Fetch images from this host where a request names an address (`*.example.com`: those below it, `*`: all); may be repeated
    #[arg(long, value_name = "HOST")]
    allow_remote_images: Vec<String>,

    /// Let pages of this origin ask (`*`: all); may be repeated
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,

    /// Answer this many requests at once
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    max_batch: u32,

    /// Let this many more requests wait
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    queue: u32,

    /// Memory for keys and values in all, those of earlier conversations included
    #[arg(long, default_value_t = 1024, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    cache_mib: u32,

    /// Most MiB of a request, its images included
    #[arg(long, default_value_t = 16, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1024))]
    max_body_mib: u32,

    /// Most connections at once
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_connections: u32,

    /// Most images of a conversation
    #[arg(long, default_value_t = 16, value_name = "N")]
    max_images: u32,
}

const HELP: &str = "Examples:
  llavm serve manifests/quickstart.toml
  llavm serve DIR --host 0.0.0.0 --api-key SECRET
  curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}'

Addresses: / (the page), /v1/chat/completions, /v1/models, /health, /metrics (Prometheus).
Ctrl-C, or SIGTERM, lets the answers being given end and stops; the exit status is then 0.";

/// The variable that may hold a key; a command line can be read by other users.
const KEY: &str = "LLAVM_API_KEY";

pub fn run(args: &Args) -> Outcome {
    args.answer.check()?;
    let settings = args.settings();
    warn_if_open(&args.host, &settings);
    let (folder, processor) = args.model.open()?;
    let listener = Server::listen(&args.host, args.port).map_err(cannot_serve)?;
    let assistant = args.model.load(&folder, processor)?;
    let server = Server::new(listener, assistant, settings).map_err(cannot_serve)?;
    let stopper = server.stopper();
    let said = "stopping; answers being given have five seconds to end. Press Ctrl-C again to end at once.";
    interrupt::on_stop(said, move || stopper.stop())?;
    let (address, context) = (server.address(), server.context());
    print(&format!("serving {} at http://{address}/ (API: http://{address}/v1)\n", args.name()))?;
    tracing::info!("context of {context} tokens");
    server.run().map_err(cannot_serve)
}

impl Args {
    fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.model.name())
    }

    fn settings(&self) -> Settings {
        let mut api_keys = self.api_key.clone();
        api_keys.extend(std::env::var(KEY).ok());
        api_keys.retain(|key| !key.is_empty());
        let limits = Limits {
            sequences: self.max_batch as usize,
            waiting: self.queue as usize,
            cache_bytes: (self.cache_mib as usize) << 20,
            ..Limits::default()
        };
        Settings {
            name: self.name(),
            defaults: Defaults { max_tokens: self.answer.max_new_tokens, sampling: self.answer.sampling() },
            api_keys,
            cors: self.cors.clone(),
            remote_images: self.allow_remote_images.clone(),
            limits,
            max_body: (self.max_body_mib as usize) << 20,
            max_connections: self.max_connections as usize,
            max_images: self.max_images as usize,
            ..Settings::default()
        }
    }
}

/// Whoever opens a server to others without a key should know it.
fn warn_if_open(host: &str, settings: &Settings) {
    let own = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !own && settings.api_keys.is_empty() {
        note(&format!("warning: everybody who reaches {host} may ask; --api-key, or {KEY}, asks for a key"));
    }
}

fn cannot_serve(error: ServeError) -> Failure {
    match error {
        ServeError::Address { .. } => {
            Failure::failed(error.to_string(), Some("Choose another with --port or --host.".to_owned()))
        }
        ServeError::Start(_) | ServeError::Cache { .. } | ServeError::Remote(_) => failed(error),
    }
}
