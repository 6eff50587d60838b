//! Initial weights drawn on the host from the seed, so that they are the same on every device.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use crate::learner::{Initial, LearnerError};
use crate::random::{Purpose, Seed};

use super::capture::Path;

/// What is known of a parameter when its initial values are asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterInfo<'a> {
    /// The path in the module, `stem.weight` for example.
    pub path: &'a str,
    /// The type that holds it, `Conv2d` for example.
    pub module: &'a str,
    /// Its field there, `weight` for example.
    pub field: &'a str,
    /// Its shape: `[out, in, h, w]` for a convolution's weight, `[in, out]` for a linear one's.
    pub shape: &'a [usize],
}

impl Initial {
    /// He et al. (2015): weights of convolutions and linear layers normal with variance
    /// `2 / fan_in`, biases zero; normalisation layers as their constructors make them;
    /// embeddings standard normal. `None` for layers it does not know.
    pub fn he_normal(parameter: &ParameterInfo<'_>) -> Option<Self> {
        let fan_in: usize = match parameter.module {
            "Conv1d" | "Conv2d" | "Conv3d" => parameter.shape.iter().skip(1).product(),
            "Linear" => parameter.shape.first().copied().unwrap_or(1),
            "Embedding" => return Some(Self::Normal(1.0)),
            "BatchNorm" | "LayerNorm" | "GroupNorm" | "InstanceNorm" | "RmsNorm" => {
                return Some(Self::Keep);
            }
            _ => return None,
        };
        match parameter.field {
            "weight" => Some(Self::Normal(libm::sqrt(2.0 / fan_in.max(1) as f64))),
            "bias" => Some(Self::Constant(0.0)),
            _ => None,
        }
    }

    pub(super) fn draw(self, count: usize, path: &str, seed: &Seed) -> Option<Vec<f32>> {
        let mut stream = seed.stream(Purpose::Weights(path));
        let mut values = |draw: &mut dyn FnMut(&mut crate::random::Stream) -> f64| {
            Some((0..count).map(|_| draw(&mut stream) as f32).collect())
        };
        match self {
            Self::Normal(deviation) => values(&mut |s| s.normal() * deviation),
            Self::Uniform(bound) => values(&mut |s| (s.unit() * 2.0 - 1.0) * bound),
            Self::Constant(value) => Some(vec![value; count]),
            Self::Keep => None,
        }
    }
}

/// How each trained parameter was drawn, by its path.
pub(super) type Drawn = BTreeMap<String, Initial>;

/// Gives every trained parameter of a freshly built module the value that the seed determines.
pub(super) fn initialise<M: Module>(
    module: M,
    seed: &Seed,
    rule: &dyn Fn(&ParameterInfo<'_>) -> Option<Initial>,
) -> Result<(M, Drawn), LearnerError> {
    let mut initialiser = Initialiser {
        path: Path::default(),
        containers: Vec::new(),
        seed,
        rule,
        drawn: Drawn::new(),
        error: None,
    };
    let module = module.map(&mut initialiser);
    match initialiser.error {
        None => Ok((module, initialiser.drawn)),
        Some(error) => Err(error),
    }
}

struct Initialiser<'a> {
    path: Path,
    containers: Vec<String>,
    seed: &'a Seed,
    rule: &'a dyn Fn(&ParameterInfo<'_>) -> Option<Initial>,
    drawn: Drawn,
    error: Option<LearnerError>,
}

impl ModuleMapper for Initialiser<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name);
        self.containers.push(container.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.leave();
        self.containers.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.is_require_grad() {
            return param;
        }
        let path = self.path.joined();
        let container = self.containers.last().map_or("", String::as_str);
        let shape = param.lazy_shape();
        let initial = (self.rule)(&ParameterInfo {
            path: &path,
            module: container.strip_prefix("Struct:").unwrap_or(container),
            field: self.path.last(),
            shape: shape.as_slice(),
        });
        let Some(initial) = initial else {
            self.error = self.error.take().or_else(|| {
                Some(LearnerError::Unsupported(format!(
                    "the initial value of `{path}` (in a {container}) is not defined; \
                     implement `Task::initial` for it"
                )))
            });
            return param;
        };
        self.drawn.insert(path.clone(), initial);
        match initial.draw(shape.num_elements(), &path, self.seed) {
            Some(values) => {
                let device = param.lazy_device();
                let data = TensorData::new(values, shape);
                let id = param.id;
                param.transform_for_load(Tensor::from_data(data, &device), id)
            }
            None => param,
        }
    }
}
