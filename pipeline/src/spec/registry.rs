//! The kinds a manifest can name. Registering a stage is one line: `registry.map::<ShiftLabels>()`.

use super::fields::field_names;
use crate::spec::stage::{GatherStage, JobStage, MapStage, Parameters, SourceStage, StageKind};
use serde_json::Value;
use std::sync::Arc;

/// All kinds, in the order they were registered.
#[derive(Default)]
pub struct Registry {
    kinds: Vec<Kind>,
}

/// One kind whose parameters have not been read yet.
pub struct Kind {
    pub name: &'static str,
    pub version: u32,
    pub about: &'static str,
    pub params: &'static [&'static str],
    /// Those of `params` that name stages.
    pub links: &'static [&'static str],
    pub role: RoleKind,
    build: fn(toml::de::ValueDeserializer<'_>) -> Result<Stage, toml::de::Error>,
}

impl Kind {
    /// Reads the parameters (the stage's own keys only: not `kind`, `from` and the like) from TOML.
    pub fn build(&self, params: toml::de::ValueDeserializer<'_>) -> Result<Stage, toml::de::Error> {
        (self.build)(params)
    }
}

/// A stage with its parameters, ready for the graph.
#[derive(Clone)]
pub struct Stage {
    pub kind: &'static str,
    pub version: u32,
    /// Canonical parameters: what `serde_json` makes of the struct, defaults filled in.
    pub params: Value,
    pub role: Role,
}

/// The four roles, by name only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    Source,
    Map,
    Gather,
    Job,
}

impl RoleKind {
    /// Whether the output is a table; otherwise it is a folder.
    pub fn gives_table(self) -> bool {
        matches!(self, Self::Source | Self::Map)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Map => "map",
            Self::Gather => "gather",
            Self::Job => "job",
        }
    }
}

/// The four roles.
#[derive(Clone)]
pub enum Role {
    Source(Arc<dyn SourceStage>),
    Map(Arc<dyn MapStage>),
    Gather(Arc<dyn GatherStage>),
    Job(Arc<dyn JobStage>),
}

impl Role {
    /// Whether this is a job: it reads folders only.
    pub fn is_job(&self) -> bool {
        matches!(self, Self::Job(_))
    }

    /// Which of the four it is.
    pub fn kind(&self) -> RoleKind {
        match self {
            Self::Source(_) => RoleKind::Source,
            Self::Map(_) => RoleKind::Map,
            Self::Gather(_) => RoleKind::Gather,
            Self::Job(_) => RoleKind::Job,
        }
    }

    pub fn parameters(&self) -> &dyn Parameters {
        match self {
            Self::Source(stage) => stage.as_ref(),
            Self::Map(stage) => stage.as_ref(),
            Self::Gather(stage) => stage.as_ref(),
            Self::Job(stage) => stage.as_ref(),
        }
    }
}

impl Registry {
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    pub fn get(&self, name: &str) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.name == name)
    }

    #[must_use]
    pub fn source<T: StageKind + SourceStage>(self) -> Self {
        self.register::<T>(RoleKind::Source, |params| stage::<T>(params, |stage| Role::Source(stage)))
    }

    #[must_use]
    pub fn map<T: StageKind + MapStage>(self) -> Self {
        self.register::<T>(RoleKind::Map, |params| stage::<T>(params, |stage| Role::Map(stage)))
    }

    #[must_use]
    pub fn gather<T: StageKind + GatherStage>(self) -> Self {
        self.register::<T>(RoleKind::Gather, |params| stage::<T>(params, |stage| Role::Gather(stage)))
    }

    #[must_use]
    pub fn job<T: StageKind + JobStage>(self) -> Self {
        self.register::<T>(RoleKind::Job, |params| stage::<T>(params, |stage| Role::Job(stage)))
    }

    fn register<T: StageKind>(
        mut self,
        role: RoleKind,
        build: fn(toml::de::ValueDeserializer<'_>) -> Result<Stage, toml::de::Error>,
    ) -> Self {
        self.kinds.push(Kind {
            name: T::KIND,
            version: T::VERSION,
            about: T::ABOUT,
            params: field_names::<T>(),
            links: T::LINKS,
            role,
            build,
        });
        self
    }
}

fn stage<T: StageKind>(
    params: toml::de::ValueDeserializer<'_>,
    role: impl FnOnce(Arc<T>) -> Role,
) -> Result<Stage, toml::de::Error> {
    let parameters = T::deserialize(params)?;
    let canonical = serde_json::to_value(&parameters).map_err(serde::de::Error::custom)?;
    Ok(Stage { kind: T::KIND, version: T::VERSION, params: canonical, role: role(Arc::new(parameters)) })
}
