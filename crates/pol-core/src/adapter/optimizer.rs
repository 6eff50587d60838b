//! An optimizer whose state is keyed by module paths and restored onto a named device.
//!
//! Burn's `ModuleOptimizer` keys it by random parameter ids and loads it onto
//! `Device::default()`, which prefers CUDA and panics where there is no driver.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdamConfig, AdamWConfig, DynOptimizer, DynState, GradientsParams, Optimizer, SgdConfig,
    StateSink, StateSource,
};
use burn::tensor::kind::BridgeTensor;
use burn::tensor::{Device, Tensor};
use burn_pack::Scalar;

use crate::learner::LearnerError;
use crate::recipe;
use crate::state::{DType, Entry, State};

use super::capture::{Path, entry_of, tensor_data};

/// Applies one of Burn's optimizers to every parameter of a module.
#[derive(Clone)]
pub struct PathOptimizer {
    rule: Arc<dyn DynOptimizer>,
    together: Option<Arc<UpdateAll>>,
    states: BTreeMap<String, DynState>,
}

/// A parameter of a module, its gradient, and the state of its optimizer.
pub struct ParameterUpdate {
    /// Dimensions of the parameter.
    pub rank: usize,
    /// The parameter.
    pub weight: BridgeTensor,
    /// Its gradient.
    pub gradient: BridgeTensor,
    /// The state, from the second update on.
    pub state: Option<DynState>,
}

/// The next values of parameters, and their states, at a learning rate.
type UpdateAll =
    dyn Fn(f64, Vec<ParameterUpdate>) -> Vec<(BridgeTensor, Option<DynState>)> + Send + Sync;

impl PathOptimizer {
    /// An optimizer with this update rule.
    pub fn new(rule: impl Optimizer) -> Self {
        Self {
            rule: Arc::new(rule),
            together: None,
            states: BTreeMap::new(),
        }
    }

    /// Updates all parameters by one call of `update`, which gives for each what the rule would.
    #[must_use]
    pub fn together(
        mut self,
        update: impl Fn(f64, Vec<ParameterUpdate>) -> Vec<(BridgeTensor, Option<DynState>)>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.together = Some(Arc::new(update));
        self
    }

    /// The optimizer that a recipe names; `None` for a custom one.
    pub fn of_recipe(optimizer: &recipe::Optimizer) -> Option<Self> {
        Some(match *optimizer {
            recipe::Optimizer::Sgd {
                momentum,
                dampening,
                weight_decay,
                nesterov,
            } => Self::new(
                SgdConfig::new()
                    .with_weight_decay(decay(weight_decay))
                    .with_momentum((momentum != 0.0).then_some(MomentumConfig {
                        momentum,
                        dampening,
                        nesterov,
                    }))
                    .build(),
            ),
            recipe::Optimizer::Adam {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => Self::new(
                AdamConfig::new()
                    .with_beta_1(beta1 as f32)
                    .with_beta_2(beta2 as f32)
                    .with_epsilon(epsilon as f32)
                    .with_weight_decay(decay(weight_decay))
                    .build(),
            ),
            recipe::Optimizer::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => Self::new(
                AdamWConfig::new()
                    .with_beta_1(beta1 as f32)
                    .with_beta_2(beta2 as f32)
                    .with_epsilon(epsilon as f32)
                    .with_weight_decay(weight_decay as f32)
                    .build(),
            ),
            recipe::Optimizer::Custom(_) => return None,
        })
    }

    /// Forgets all state.
    pub fn reset(&mut self) {
        self.states.clear();
    }

    /// Updates every parameter that has a gradient.
    pub fn step<M: Module>(&mut self, rate: f64, module: M, gradients: GradientsParams) -> M {
        let mut given = Gather {
            gradients,
            states: std::mem::take(&mut self.states),
            path: Path::default(),
            paths: Vec::new(),
            updates: Vec::new(),
        };
        module.visit(&mut given);
        self.states = given.states;
        let updated = match &self.together {
            Some(update) => update(rate, given.updates),
            None => (given.updates.into_iter())
                .map(|update| {
                    self.rule.step_dyn(
                        update.rank,
                        rate,
                        update.weight,
                        update.gradient,
                        update.state,
                    )
                })
                .collect(),
        };
        let mut next = BTreeMap::new();
        for (path, (weight, state)) in given.paths.into_iter().zip(updated) {
            if let Some(state) = state {
                self.states.insert(path.clone(), state);
            }
            next.insert(path, weight);
        }
        module.map(&mut Replace {
            path: Path::default(),
            next,
        })
    }

    /// Appends `optim/<path>/<field>` for every tensor and scalar of the state.
    pub(super) fn capture(&self, entries: &mut Vec<Entry>) -> Result<(), LearnerError> {
        for (path, state) in &self.states {
            let mut sink = StateSink::default();
            self.rule.state_flatten(path, state, &mut sink);
            let name = |key: &str| {
                let field = key.strip_prefix(path.as_str()).unwrap_or(key);
                format!("optim/{path}/{}", field.trim_start_matches('.'))
            };
            for (key, data) in sink.tensors {
                entries.push(entry_of(name(&key), data)?);
            }
            for (key, value) in sink.scalars {
                let name = name(&key);
                entries.push(match value {
                    Scalar::Int(value) => Entry::i64(name, value),
                    Scalar::UInt(value) => Entry::u64(name, value),
                    Scalar::Float(value) => Entry::f64(name, value),
                    Scalar::Bool(value) => Entry::bool(name, value),
                });
            }
        }
        Ok(())
    }

    /// Replaces the state with that of `state`, for parameters of these paths and shapes.
    pub(super) fn restore(
        &mut self,
        state: &State,
        parameters: &[(String, Vec<u64>)],
        device: &Device,
    ) -> Result<(), LearnerError> {
        let mut states = BTreeMap::new();
        let mut used = 0;
        for (path, shape) in parameters {
            let prefix = format!("optim/{path}/");
            let mut scalars = BTreeMap::new();
            let mut tensors = Vec::new();
            for entry in of_prefix(state, &prefix) {
                let key = format!("{path}.{}", &entry.name()[prefix.len()..]);
                match scalar(entry) {
                    Some(value) => drop(scalars.insert(key, value)),
                    // Rules that update together keep tensors like the parameter; others may not.
                    None if self.together.is_some() && entry.header.shape != *shape => {
                        return Err(LearnerError::Unfit(format!(
                            "`{}` has another shape than its parameter",
                            entry.name()
                        )));
                    }
                    None => tensors.push((key, tensor_data(entry))),
                }
                used += 1;
            }
            if scalars.is_empty() && tensors.is_empty() {
                continue;
            }
            let mut source = StateSource::new(scalars);
            for (key, data) in tensors {
                source.insert_tensor(key, data);
            }
            let restored = self
                .rule
                .state_unflatten(shape.len(), path, &mut source, device);
            let restored = restored.ok_or_else(|| {
                LearnerError::Unfit(format!(
                    "the optimizer cannot use the state under `{prefix}`"
                ))
            })?;
            states.insert(path.clone(), restored);
        }
        let present = of_prefix(state, "optim/").count();
        if present != used {
            return Err(LearnerError::Unfit(
                "the optimizer's state is for parameters that the model lacks".to_owned(),
            ));
        }
        self.states = states;
        Ok(())
    }
}

fn decay(penalty: f64) -> Option<WeightDecayConfig> {
    (penalty != 0.0).then(|| WeightDecayConfig::new(penalty as f32))
}

fn of_prefix<'a>(state: &'a State, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
    (state.entries().iter()).filter(move |entry| entry.name().starts_with(prefix))
}

fn scalar(entry: &Entry) -> Option<Scalar> {
    if !entry.header.shape.is_empty() {
        return None;
    }
    let bytes: [u8; 8] = match entry.header.dtype {
        DType::Bool => return Some(Scalar::Bool(*entry.bytes.first()? != 0)),
        DType::I64 | DType::U64 | DType::F64 => entry.bytes.as_slice().try_into().ok()?,
        _ => return None,
    };
    match entry.header.dtype {
        DType::I64 => Some(Scalar::Int(i64::from_le_bytes(bytes))),
        DType::U64 => Some(Scalar::UInt(u64::from_le_bytes(bytes))),
        _ => Some(Scalar::Float(f64::from_le_bytes(bytes))),
    }
}

/// Takes what an update needs of each parameter that has a gradient.
struct Gather {
    gradients: GradientsParams,
    states: BTreeMap<String, DynState>,
    path: Path,
    paths: Vec<String>,
    updates: Vec<ParameterUpdate>,
}

impl ModuleVisitor for Gather {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.leave();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.remove::<D>(param.id) else {
            return;
        };
        let path = self.path.joined();
        self.updates.push(ParameterUpdate {
            rank: D,
            weight: param.val().inner().into_bridge(),
            gradient: gradient.into_bridge(),
            state: self.states.remove(&path),
        });
        self.paths.push(path);
    }
}

/// Puts parameters' next values in their places.
struct Replace {
    path: Path,
    next: BTreeMap<String, BridgeTensor>,
}

impl ModuleMapper for Replace {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.leave();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(next) = self.next.remove(&self.path.joined()) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let mut updated = Tensor::from_inner(Tensor::<D>::from_bridge(next));
        if let Some(strategy) = tensor.gradient_checkpointing_strategy() {
            updated = updated.with_gradient_checkpointing_strategy(strategy);
        }
        Param::from_mapped_value(id, updated.require_grad(), mapper)
    }
}
