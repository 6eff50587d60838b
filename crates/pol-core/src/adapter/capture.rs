//! A module's tensors as entries of a state, and back.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, BoolStore, DType as BurnDType, Int, Shape, Tensor, TensorData};

use super::failure::device_failure;
use crate::learner::LearnerError;
use crate::state::{DType, Entry, State};

/// The path of nested fields during a traversal, joined by dots.
#[derive(Default)]
pub(super) struct Path(Vec<String>);

impl Path {
    pub(super) fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    pub(super) fn leave(&mut self) {
        self.0.pop();
    }

    pub(super) fn joined(&self) -> String {
        self.0.join(".")
    }

    pub(super) fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }
}

/// Appends `model/<path>` for every parameter and buffer. The module must be one that
/// [`Module::valid`] gave: that call is what brings BatchNorm's running statistics up to date.
///
/// Whole numbers are stored as `i64` and truth values as one byte, whatever the backend uses.
pub(super) fn capture_module<M: Module>(
    module: &M,
    entries: &mut Vec<Entry>,
) -> Result<(), LearnerError> {
    let mut collector = Collector {
        path: Path::default(),
        entries,
        error: None,
    };
    module.visit(&mut collector);
    collector.error.map_or(Ok(()), Err)
}

/// Replaces every tensor of a freshly built module with the state's.
pub(super) fn restore_module<M: Module>(module: M, state: &State) -> Result<M, LearnerError> {
    let mut loader = Loader {
        path: Path::default(),
        state,
        used: 0,
        error: None,
    };
    let module = module.map(&mut loader);
    if let Some(error) = loader.error {
        return Err(error);
    }
    let present = (state.entries().iter())
        .filter(|entry| entry.name().starts_with("model/"))
        .count();
    if present != loader.used {
        return Err(LearnerError::Unfit(format!(
            "the state has {present} model tensors; the model has {}",
            loader.used
        )));
    }
    Ok(module)
}

/// The paths of all that the optimizer does not update, and the rank of all that it does.
pub(super) fn survey<M: Module>(module: &M) -> Survey {
    let mut survey = Survey::default();
    module.visit(&mut survey);
    survey
}

#[derive(Default)]
pub(super) struct Survey {
    path: Path,
    /// Entry names of buffers.
    pub(super) buffers: BTreeSet<String>,
    /// Path and shape of each trained parameter.
    pub(super) parameters: Vec<(String, Vec<u64>)>,
}

impl ModuleVisitor for Survey {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.leave();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            let shape = param.dims().map(|size| size as u64).to_vec();
            self.parameters.push((self.path.joined(), shape));
        } else {
            self.buffers.insert(model_entry(&self.path));
        }
    }

    fn visit_int<const D: usize>(&mut self, _param: &Param<Tensor<D, Int>>) {
        self.buffers.insert(model_entry(&self.path));
    }

    fn visit_bool<const D: usize>(&mut self, _param: &Param<Tensor<D, Bool>>) {
        self.buffers.insert(model_entry(&self.path));
    }
}

/// The gradient of each parameter that has one, by the name that the parameter has in states.
///
/// # Errors
/// If the device fails.
pub fn gradients_by_entry<M: Module>(
    module: &M,
    gradients: &GradientsParams,
) -> Result<Vec<Entry>, LearnerError> {
    let mut entries = Vec::new();
    let mut reader = GradientReader {
        gradients,
        collector: Collector {
            path: Path::default(),
            entries: &mut entries,
            error: None,
        },
    };
    module.visit(&mut reader);
    reader.collector.error.map_or(Ok(entries), Err)
}

struct GradientReader<'a> {
    gradients: &'a GradientsParams,
    collector: Collector<'a>,
}

impl ModuleVisitor for GradientReader<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.collector.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.collector.path.leave();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.collector.collect(gradient.try_into_data());
        }
    }
}

struct Collector<'a> {
    path: Path,
    entries: &'a mut Vec<Entry>,
    error: Option<LearnerError>,
}

impl Collector<'_> {
    fn collect(&mut self, data: Result<TensorData, impl std::fmt::Display>) {
        let entry = data
            .map_err(|error| device_failure(&error))
            .and_then(|data| entry_of(model_entry(&self.path), data));
        match entry {
            Ok(entry) => self.entries.push(entry),
            Err(error) => self.error = self.error.take().or(Some(error)),
        }
    }
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.leave();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.collect(param.transform_for_save().val().try_into_data());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.collect(param.transform_for_save().val().try_into_data_as::<i64>());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.collect(param.transform_for_save().val().try_into_data_as::<bool>());
    }
}

struct Loader<'a> {
    path: Path,
    state: &'a State,
    used: usize,
    error: Option<LearnerError>,
}

impl Loader<'_> {
    /// The state's values for the current path, if their shape is `shape`.
    fn take(&mut self, shape: &Shape) -> Option<TensorData> {
        let name = model_entry(&self.path);
        let problem = match self.state.entry(&name) {
            None => format!("the state lacks `{name}`"),
            Some(entry) => {
                let fits = (entry.header.shape.iter())
                    .copied()
                    .eq(shape.as_slice().iter().map(|&dim| dim as u64));
                if fits {
                    self.used += 1;
                    return Some(tensor_data(entry));
                }
                format!(
                    "`{name}` has the shape {:?}; the model's is {:?}",
                    entry.header.shape,
                    shape.as_slice()
                )
            }
        };
        self.error = self.error.take().or(Some(LearnerError::Unfit(problem)));
        None
    }
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.leave();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let device = param.lazy_device();
        match self.take(&param.lazy_shape()) {
            Some(data) => {
                let dtype = data.dtype();
                let id = param.id;
                param.transform_for_load(Tensor::from_data(data, (&device, dtype)), id)
            }
            None => param,
        }
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        let device = param.lazy_device();
        match self.take(&param.lazy_shape()) {
            Some(data) => {
                let id = param.id;
                param.transform_for_load(Tensor::from_data(data, &device), id)
            }
            None => param,
        }
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        let device = param.lazy_device();
        match self.take(&param.lazy_shape()) {
            Some(data) => {
                let id = param.id;
                param.transform_for_load(Tensor::from_data(data, &device), id)
            }
            None => param,
        }
    }
}

fn model_entry(path: &Path) -> String {
    format!("model/{}", path.joined())
}

/// A Burn tensor's data as an entry.
pub(super) fn entry_of(name: String, data: TensorData) -> Result<Entry, LearnerError> {
    let dtype = match data.dtype() {
        BurnDType::F64 => DType::F64,
        BurnDType::F32 | BurnDType::Flex32 => DType::F32,
        BurnDType::F16 => DType::F16,
        BurnDType::BF16 => DType::BF16,
        BurnDType::I64 => DType::I64,
        BurnDType::I32 => DType::I32,
        BurnDType::I16 => DType::I16,
        BurnDType::I8 => DType::I8,
        BurnDType::U64 => DType::U64,
        BurnDType::U32 => DType::U32,
        BurnDType::U16 => DType::U16,
        BurnDType::U8 => DType::U8,
        BurnDType::Bool(BoolStore::Native) => DType::Bool,
        other => {
            return Err(LearnerError::Unsupported(format!(
                "`{name}` has the element type {other:?}, which a state cannot hold"
            )));
        }
    };
    let shape = data.shape().as_slice().iter().map(|&dim| dim as u64);
    Ok(Entry::tensor(
        name,
        dtype,
        shape.collect(),
        data.as_bytes().to_vec(),
    ))
}

/// An entry as data for a Burn tensor.
pub(super) fn tensor_data(entry: &Entry) -> TensorData {
    let dtype = match entry.header.dtype {
        DType::F64 => BurnDType::F64,
        DType::F32 => BurnDType::F32,
        DType::F16 => BurnDType::F16,
        DType::BF16 => BurnDType::BF16,
        DType::I64 => BurnDType::I64,
        DType::I32 => BurnDType::I32,
        DType::I16 => BurnDType::I16,
        DType::I8 => BurnDType::I8,
        DType::U64 => BurnDType::U64,
        DType::U32 => BurnDType::U32,
        DType::U16 => BurnDType::U16,
        DType::U8 => BurnDType::U8,
        DType::Bool => BurnDType::Bool(BoolStore::Native),
    };
    let shape: Vec<usize> = (entry.header.shape.iter())
        .map(|&dim| dim as usize)
        .collect();
    TensorData::from_bytes_vec(entry.bytes.clone(), shape, dtype)
}
