//! The devices a training can run on, chosen at run time by name.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;
#[cfg(any(
    feature = "wgpu",
    feature = "vulkan",
    feature = "cuda",
    feature = "cpu"
))]
use burn::tensor::DeviceType;

/// A backend of Burn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// The CPU, in Rust: always there, deterministic.
    Flex,
    /// Vulkan, Metal or DirectX 12, through WGSL.
    Wgpu,
    /// Vulkan through SPIR-V.
    Vulkan,
    /// NVIDIA GPUs.
    Cuda,
    /// The CPU through CubeCL's just-in-time compiler.
    Cpu,
}

/// Why a backend cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// No backend has this name.
    #[error("there is no backend `{0}`; the backends are flex, wgpu, vulkan, cuda and cpu")]
    Unknown(String),
    /// This build does not have it.
    #[error("the backend `{0}` is not compiled into this program (cargo feature `{0}`)")]
    NotCompiled(Backend),
    /// This machine does not have it.
    #[error("the backend `{backend}` finds no device on this machine; {remedy}")]
    Absent {
        /// The backend.
        backend: Backend,
        /// What the user can do.
        remedy: &'static str,
    },
}

impl Backend {
    /// All backends.
    pub const ALL: [Self; 5] = [Self::Flex, Self::Wgpu, Self::Vulkan, Self::Cuda, Self::Cpu];

    /// Whether this build chooses among kernels by timing them.
    pub const AUTOTUNE: bool = cfg!(feature = "autotune");
    /// Whether this build fuses elementwise kernels.
    pub const FUSION: bool = cfg!(feature = "fusion");

    /// The name on the command line, and the cargo feature.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
        }
    }

    /// Whether this build has the backend.
    pub const fn is_compiled(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "flex"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Cpu => cfg!(feature = "cpu"),
        }
    }

    /// Whether the same steps give the same bits again on the same device. Float atomics make
    /// some sums of the GPU backends depend on the order in which threads arrive.
    pub const fn is_deterministic(self) -> bool {
        matches!(self, Self::Flex)
    }

    /// What makes the backend available where it finds no device.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Flex => "it needs nothing but this program",
            Self::Wgpu | Self::Vulkan => {
                "install a GPU driver with Vulkan, or Mesa's software device \
                 (Debian and Ubuntu: apt install mesa-vulkan-drivers libvulkan1)"
            }
            Self::Cuda => {
                "install NVIDIA's driver, 580 or later, and look whether `nvidia-smi` lists a GPU"
            }
            Self::Cpu => "CubeCL could not start its compiler; use `flex`",
        }
    }

    /// The backend's first device. Opens nothing yet on CubeCL's backends.
    ///
    /// # Errors
    /// If the backend is not compiled in, or finds no device. The search may abort the process
    /// where a driver is broken; `pol` makes it in a child process first.
    #[allow(
        unreachable_code,
        unused_variables,
        reason = "where no backend is compiled in"
    )]
    pub fn device(self) -> Result<Device, BackendError> {
        let found: Option<Device> = match self {
            #[cfg(feature = "flex")]
            Self::Flex => Some(Device::flex()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => first(DeviceType::Wgpu),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => first(DeviceType::Vulkan),
            #[cfg(feature = "cuda")]
            Self::Cuda => first(DeviceType::Cuda),
            #[cfg(feature = "cpu")]
            Self::Cpu => first(DeviceType::Cpu),
            #[allow(
                unreachable_patterns,
                reason = "reachable unless every backend is compiled in"
            )]
            _ => return Err(BackendError::NotCompiled(self)),
        };
        found.ok_or(BackendError::Absent {
            backend: self,
            remedy: self.remedy(),
        })
    }

    /// What the driver answers, where it answers and [`Backend::device`] finds no device. Prints a panic where
    /// there is no driver; `pol` asks in a child process.
    pub fn refusal(self) -> Option<String> {
        #[cfg(feature = "cuda")]
        if self == Self::Cuda {
            // The library panics where there is none to load.
            let asked = std::panic::catch_unwind(cudarc::driver::result::init);
            let error = asked.ok()?.err()?;
            let text = (error.error_string().ok()).map(|text| text.to_string_lossy().into_owned());
            return Some(format!(
                "NVIDIA's driver answers {:?}: {}",
                error.0,
                text.unwrap_or_default()
            ));
        }
        None
    }

    /// How the device calls itself. Opens the device.
    ///
    /// # Errors
    /// As [`Backend::device`].
    pub fn device_name(self) -> Result<String, BackendError> {
        let device = self.device()?;
        #[cfg(any(
            feature = "wgpu",
            feature = "vulkan",
            feature = "cuda",
            feature = "cpu"
        ))]
        if let Some(identity) = device.identity() {
            return Ok(identity.name);
        }
        drop(device);
        Ok(match self {
            Self::Flex => format!("CPU ({})", std::env::consts::ARCH),
            other => other.name().to_owned(),
        })
    }
}

#[cfg(any(
    feature = "wgpu",
    feature = "vulkan",
    feature = "cuda",
    feature = "cpu"
))]
fn first(kind: DeviceType) -> Option<Device> {
    Device::enumerate(kind).into_vec().into_iter().next()
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|backend| backend.name() == name)
            .ok_or_else(|| BackendError::Unknown(name.to_owned()))
    }
}
