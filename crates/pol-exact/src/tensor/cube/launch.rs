//! What launching a kernel needs besides the kernel.

use std::sync::OnceLock;

use burn::backend::TensorMetadata;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use crate::profile::Profile;

/// Units of a cube.
const UNITS: u32 = 64;
/// Buffers that a kernel binds at most, and one for its scalars.
const BINDINGS: u32 = 13;

/// The tensor with its values in order in memory.
pub(super) fn contiguous(tensor: CubeTensor) -> CubeTensor {
    into_contiguous(tensor)
}

/// A new tensor beside another, its values not yet written.
pub(super) fn empty(like: &CubeTensor, dims: &[usize]) -> CubeTensor {
    empty_device_contiguous_dtype(
        like.client.clone(),
        like.device.clone(),
        dims.to_vec().into(),
        like.dtype,
    )
}

/// As many cubes as give each of `count` values a unit.
pub(super) fn cubes(tensor: &CubeTensor, count: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new_1d(UNITS);
    (
        calculate_cube_count_elemwise(&tensor.client, count, dim),
        dim,
    )
}

/// So many cubes of so many units; there may be more.
pub(super) fn cube_count(tensor: &CubeTensor, cubes: usize, units: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new_1d(units as u32);
    (
        calculate_cube_count_elemwise(&tensor.client, cubes * units, dim),
        dim,
    )
}

pub(super) fn dims(tensor: &CubeTensor) -> Vec<usize> {
    tensor.shape().to_vec()
}

/// Launches a kernel with a unit for each of the values of `$out`, which come back.
///
/// Arguments of a kernel are its inputs, its output, and the rest.
macro_rules! launch {
    ($kernel:path, $($input:expr),+; $dims:expr; $($rest:expr),* $(,)?) => {{
        $crate::tensor::cube::launch::launch!(@
            $kernel, |out: &burn_cubecl::tensor::CubeTensor, count| {
                $crate::tensor::cube::launch::cubes(out, count)
            }, $($input),+; $dims; $($rest),*
        )
    }};
    (@ $kernel:path, $cubes:expr, $($input:expr),+; $dims:expr; $($rest:expr),* $(,)?) => {{
        let inputs = [$($crate::tensor::cube::launch::contiguous($input)),+];
        let out = $crate::tensor::cube::launch::empty(&inputs[0], &$dims);
        let count = out.meta.shape().num_elements();
        let (cubes, dim) = $cubes(&out, count);
        let client = out.client.clone();
        let mut inputs = inputs.into_iter();
        if count > 0 {
            $kernel(
                &client,
                cubes,
                dim,
                $({
                    let _ = stringify!($input);
                    inputs.next().unwrap_or_else(|| unreachable!()).into_buffer_arg()
                }),+,
                out.clone().into_buffer_arg(),
                $($rest),*
            );
        }
        out
    }};
}
pub(super) use launch;

/// As [`launch`], with `$cubes` cubes of [`UNITS`](super::sums::UNITS) units that share memory.
macro_rules! launch_cubes {
    ($kernel:path, $($input:expr),+; $dims:expr; $cubes:expr; $($rest:expr),* $(,)?) => {{
        let cubes = $cubes;
        $crate::tensor::cube::launch::launch!(@
            $kernel, |out: &burn_cubecl::tensor::CubeTensor, _| {
                $crate::tensor::cube::launch::cube_count(out, cubes, $crate::tensor::cube::sums::UNITS)
            }, $($input),+; $dims; $($rest),*
        )
    }};
}
pub(super) use launch_cubes;

/// Whether the cubes of this tensor's device share memory without loss.
///
/// Not so on a CPU, where each unit of such a cube is a thread, nor where a kernel may not bind as many buffers as these
/// need. The environment variable `POL_EXACT_KERNELS`, `plain` or
/// `shared`, decides it for tests and measurements.
pub(super) fn shares_memory(tensor: &CubeTensor) -> bool {
    static ASKED: OnceLock<Option<bool>> = OnceLock::new();
    let asked = ASKED.get_or_init(|| match std::env::var("POL_EXACT_KERNELS") {
        Ok(name) if name == "plain" => Some(false),
        Ok(name) if name == "shared" => Some(true),
        _ => None,
    });
    if let Some(asked) = asked {
        return *asked;
    }
    let hardware = &tensor.client.properties().hardware;
    hardware.num_cpu_cores.is_none() && hardware.max_bindings >= BINDINGS
}

/// How the kernels of tiles are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tiled {
    /// Whether a product enters its sum without a rounding of its own.
    pub(super) fused: bool,
    /// Whether the steps of a slab are written out. CUDA's compiler leaves a loop as it is; those of drivers decide
    /// themselves, and llvmpipe's compiles what is written out several times longer.
    pub(super) unrolls: bool,
}

impl Tiled {
    pub(super) fn of(tensor: &CubeTensor, profile: Profile) -> Self {
        let hardware = &tensor.client.properties().hardware;
        Self {
            fused: profile.fused(),
            unrolls: hardware.num_streaming_multiprocessors.is_some(),
        }
    }
}
