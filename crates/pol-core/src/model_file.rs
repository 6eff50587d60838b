//! The exported model (SPEC.md §10): the final state's entries `model/…` as a safetensors file. A
//! model has one file, byte for byte, and is committed to by its tensors.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::digest::Digest;
use crate::merkle::Tree;
use crate::object::MAX_STATE_BYTES;
use crate::state::{DType, Entry, EntryHeader, State};

/// The prefix of the entries that are the model.
const PREFIX: &str = "model/";

/// Why a file is not the file of a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelFileError {
    /// Larger than any state.
    #[error("it has {0} bytes; the limit is {MAX_STATE_BYTES}")]
    TooLarge(u64),
    /// Not safetensors.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] safetensors::SafeTensorError),
    /// A tensor that no state holds.
    #[error("its `{0}` cannot be part of a state")]
    Tensor(String),
    /// The right tensors in another arrangement, or with something added.
    #[error("it is not in the one form that a model's file has")]
    NotCanonical,
}

/// The model's file.
///
/// # Errors
/// If the format cannot hold a tensor's type, which happens to none of [`DType`]'s.
pub fn encode(state: &State) -> Result<Vec<u8>, ModelFileError> {
    let views = (state.entries().iter())
        .filter_map(|entry| Some((entry.name().strip_prefix(PREFIX)?, entry)))
        .map(|(name, entry)| {
            let shape = entry.header.shape.iter().map(|&dim| dim as usize).collect();
            let view = TensorView::new(file_type(entry.header.dtype), shape, &entry.bytes)?;
            Ok((name, view))
        })
        .collect::<Result<Vec<_>, ModelFileError>>()?;
    Ok(safetensors::serialize(views, None)?)
}

/// The least and the greatest length, in bytes, of the file of a model among tensors with these headers: that
/// of its values, with a head whose numbers and names may take more or less.
pub fn length_of(layout: &[EntryHeader]) -> (u64, u64) {
    let model = || layout.iter().filter(|header| is_model(&header.name));
    let values = model().filter_map(EntryHeader::byte_len);
    let values = values.fold(0, u64::saturating_add);
    // A character of a name is written as up to six; type, shape and place take less than the rest.
    let named = |header: &EntryHeader| 6 * header.name.len() + 24 * header.shape.len() + 128;
    let head: usize = model().map(named).sum();
    let least = values.saturating_add(8);
    (least, least.saturating_add(head as u64 + 16))
}

/// The root over the model's tensors in `state`: what a proof commits to (SPEC.md §10).
pub fn root(state: &State) -> Digest {
    let leaves: Vec<Digest> = (state.entries().iter())
        .filter(|entry| is_model(entry.name()))
        .map(Entry::digest)
        .collect();
    Tree::Model.root(&leaves)
}

/// The root over the tensors of a file.
///
/// # Errors
/// If it is not, byte for byte, the file of a model with these tensors.
pub fn root_of_file(file: &[u8]) -> Result<Digest, ModelFileError> {
    if file.len() as u64 > MAX_STATE_BYTES {
        return Err(ModelFileError::TooLarge(file.len() as u64));
    }
    let tensors = SafeTensors::deserialize(file)?;
    let entries = (tensors.iter())
        .map(|(name, view)| {
            let dtype = state_type(view.dtype())
                .ok_or_else(|| ModelFileError::Tensor(name.escape_debug().to_string()))?;
            let shape = view.shape().iter().map(|&dim| dim as u64).collect();
            let name = format!("{PREFIX}{name}");
            Ok(Entry::tensor(name, dtype, shape, view.data().to_vec()))
        })
        .collect::<Result<Vec<_>, ModelFileError>>()?;
    let state = State::new(entries).map_err(|error| ModelFileError::Tensor(error.to_string()))?;
    match encode(&state)? == file {
        true => Ok(root(&state)),
        false => Err(ModelFileError::NotCanonical),
    }
}

/// Whether the entry of this name is part of the model.
pub fn is_model(name: &str) -> bool {
    name.starts_with(PREFIX)
}

const TYPES: [(DType, Dtype); 13] = [
    (DType::F64, Dtype::F64),
    (DType::F32, Dtype::F32),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::I64, Dtype::I64),
    (DType::I32, Dtype::I32),
    (DType::I16, Dtype::I16),
    (DType::I8, Dtype::I8),
    (DType::U64, Dtype::U64),
    (DType::U32, Dtype::U32),
    (DType::U16, Dtype::U16),
    (DType::U8, Dtype::U8),
    (DType::Bool, Dtype::BOOL),
];

fn file_type(dtype: DType) -> Dtype {
    let found = TYPES.iter().find(|(ours, _)| *ours == dtype);
    found.map_or(Dtype::U8, |(_, theirs)| *theirs)
}

fn state_type(dtype: Dtype) -> Option<DType> {
    let found = TYPES.iter().find(|(_, theirs)| *theirs == dtype);
    found.map(|(ours, _)| *ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::new(vec![
            Entry::f32("model/w", vec![2], &[1.0, -2.0]),
            Entry::i64("model/n", 7),
            Entry::f32("optim/w/velocity", vec![2], &[0.5, 0.5]),
            Entry::u64("schedule/step", 4),
        ])
        .unwrap()
    }

    #[test]
    fn a_model_has_one_file_and_every_byte_of_it_matters() {
        let file = encode(&state()).unwrap();
        let expected = root(&state());
        assert_eq!(root_of_file(&file).unwrap(), expected);
        for position in 0..file.len() {
            let mut altered = file.clone();
            altered[position] ^= 1;
            assert_ne!(root_of_file(&altered).ok(), Some(expected), "{position}");
        }
        let layout: Vec<EntryHeader> = state().layout().cloned().collect();
        let (least, most) = length_of(&layout);
        assert!((least..=most).contains(&(file.len() as u64)));
        assert!(most - least < 400, "nothing much longer is read");
        let extended = [&file[..], b"x"].concat();
        assert!(root_of_file(&extended).is_err());
        assert!(root_of_file(&[]).is_err());
    }

    #[test]
    fn only_the_model_is_in_its_root() {
        let mut entries = state().entries().to_vec();
        entries.retain(|entry| is_model(entry.name()));
        assert_eq!(root(&State::new(entries.clone()).unwrap()), root(&state()));
        entries[0].bytes[0] ^= 1;
        assert_ne!(root(&State::new(entries).unwrap()), root(&state()));
    }
}
