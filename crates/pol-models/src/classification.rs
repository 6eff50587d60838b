//! Classification of images as a task: records to tensors, scores to cross-entropy.

use std::sync::Arc;

use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use pol_core::adapter::{StepOutput, Task, device_failure, gradients_by_entry};
use pol_core::learner::{Batch, LearnerError};
use pol_core::records::{Record, Records};
use rayon::prelude::*;

use crate::augment::Augmentation;
use crate::dataset::{DatasetName, Images};
use crate::image_learner::{Evaluation, Gradients};
use crate::layers::Layers;
use crate::model::Classifier;

/// Images evaluated at a time.
const EVALUATION_BATCH: u64 = 256;

type Build<M> = Arc<dyn Fn(&Device) -> M + Send + Sync>;

/// A classifier trained on a data set with cross-entropy.
pub struct Classification<M> {
    dataset: DatasetName,
    pixel_offset: usize,
    augmentation: Augmentation,
    layers: Layers,
    build: Build<M>,
}

impl<M: Classifier> Classification<M> {
    /// A task for records of `dataset` whose pixels follow `pixel_offset` bytes; `build` makes
    /// the model, of these layers.
    pub fn new(
        dataset: DatasetName,
        pixel_offset: usize,
        augmentation: Augmentation,
        layers: Layers,
        build: impl Fn(&Device) -> M + Send + Sync + 'static,
    ) -> Self {
        Self {
            dataset,
            pixel_offset,
            augmentation,
            layers,
            build: Arc::new(build),
        }
    }

    /// Pixels of a record, if it is of this data set.
    fn pixels<'a>(&self, record: &Record<'a>) -> Result<&'a [u8], LearnerError> {
        let pixels = record.bytes.get(self.pixel_offset..).unwrap_or(&[]);
        let label_ok = (record.label as usize) < self.dataset.classes();
        if pixels.len() == self.dataset.image().len() && label_ok {
            Ok(pixels)
        } else {
            Err(LearnerError::Unfit(format!(
                "a record with label {} and {} bytes of pixels is not one of {}",
                record.label,
                pixels.len(),
                self.dataset
            )))
        }
    }

    fn images(&self, values: Vec<f32>, count: usize, device: &Device) -> Tensor<4> {
        let image = self.dataset.image();
        let shape = [count, image.channels, image.height, image.width];
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// See [`ImageLearner::gradients`](crate::ImageLearner::gradients).
    pub(crate) fn gradients(
        &self,
        model: &M,
        pixels: &[f32],
        labels: &[u32],
        device: &Device,
    ) -> Result<Gradients, LearnerError> {
        let (count, len) = (labels.len(), self.dataset.image().len());
        let classes = self.dataset.classes();
        let known = labels.iter().all(|&label| (label as usize) < classes);
        if count == 0 || pixels.len() != count * len || !known {
            return Err(LearnerError::Unfit(format!(
                "{} pixels and {count} labels are not a batch of {}",
                pixels.len(),
                self.dataset
            )));
        }
        let norm = self.dataset.normalisation();
        let images = norm.of_shares(pixels, len);
        let input = self.images(images, count, device).require_grad();
        let mut targets = vec![0f32; count * classes];
        for (row, &label) in labels.iter().enumerate() {
            targets[row * classes + label as usize] = 1.0;
        }
        let targets = Tensor::<2>::from_data(TensorData::new(targets, [count, classes]), device);
        let scores = model.scores(input.clone(), None); // [n, classes]
        let loss = self.layers.cross_entropy(scores, targets);
        let mut found = loss.backward();
        let by_input = (input.grad_remove(&mut found)).ok_or_else(|| {
            LearnerError::Unsupported("the model has no gradient by its input".to_owned())
        })?;
        let read = |data: TensorData| {
            data.try_to_vec::<f32>()
                .map_err(|error| device_failure(&error))
        };
        let by_input = by_input
            .try_into_data_as::<f32>()
            .map_err(|error| device_failure(&error))?;
        let loss = loss
            .inner()
            .try_into_data_as::<f32>()
            .map_err(|error| device_failure(&error))?;
        let gradients = GradientsParams::from_grads(found, model);
        Ok(Gradients {
            loss: f64::from(read(loss)?.first().copied().unwrap_or(f32::NAN)),
            parameters: gradients_by_entry(model, &gradients)?,
            pixels: norm.by_shares(read(by_input)?, len),
        })
    }

    /// The share of the first `limit` images that `model` classifies rightly.
    pub(crate) fn evaluate(
        &self,
        model: &M,
        images: &Images,
        limit: u64,
        device: &Device,
    ) -> Result<Evaluation, LearnerError> {
        let model = model.valid();
        let device = device.clone().inner();
        let records = images.len().min(limit);
        let mut correct = 0;
        let mut first = 0;
        while first < records {
            let last = records.min(first + EVALUATION_BATCH);
            let mut values = Vec::new();
            let mut labels = Vec::new();
            for record in (first..last).filter_map(|index| images.record(index)) {
                let norm = self.dataset.normalisation();
                let first = values.len();
                values.resize(first + self.dataset.image().len(), 0.0);
                norm.write(self.pixels(&record)?, &mut values[first..]);
                labels.push(i64::from(record.label));
            }
            let input = self.images(values, labels.len(), &device);
            let best = model.scores(input, None).argmax(1); // [n, 1]
            let best = (best.try_into_data_as::<i64>()).map_err(|error| device_failure(&error))?;
            let best = best.as_slice::<i64>().unwrap_or(&[]);
            correct += best.iter().zip(&labels).filter(|(a, b)| a == b).count() as u64;
            first = last;
        }
        Ok(Evaluation { correct, records })
    }
}

impl<M: Classifier> Task for Classification<M> {
    type Model = M;

    fn build(&self, device: &Device) -> M {
        (self.build)(device)
    }

    fn order_is_free(&self, model: &M) -> bool {
        model.order_is_free()
    }

    fn step(
        &self,
        model: &M,
        batch: &Batch<'_>,
        device: &Device,
    ) -> Result<StepOutput, LearnerError> {
        let image = self.dataset.image();
        let classes = self.dataset.classes();
        let norm = self.dataset.normalisation();
        let count = batch.len();
        let mut targets = vec![0f32; count * classes];
        let mut labels = Vec::with_capacity(count);
        let mut rows = Vec::with_capacity(count);
        for (row, (index, record)) in batch.records().enumerate() {
            rows.push((index, self.pixels(&record)?));
            targets[row * classes + record.label as usize] = 1.0;
            labels.push(i64::from(record.label));
        }
        let mut values = vec![0f32; count * image.len()];
        (values.par_chunks_mut(image.len()).zip(rows)).for_each(|(values, (index, pixels))| {
            if self.augmentation.is_none() {
                norm.write(pixels, values);
            } else {
                let mut draws = batch.augmentation(index);
                let varied = self.augmentation.apply(pixels, image, &mut draws);
                norm.write(&varied, values);
            }
        });
        let input = self.images(values, count, device);
        let targets = Tensor::<2>::from_data(TensorData::new(targets, [count, classes]), device);
        let scores = model.scores(input, Some(batch)); // [n, classes]

        let loss = self.layers.cross_entropy(scores.clone(), targets);

        let best = scores.inner().argmax(1).reshape([count]); // [n]
        let plain = device.clone().inner();
        let labels = Tensor::from_data(TensorData::new(labels, [count]), &plain);
        let correct = best.equal(labels).float().sum_dim(0);
        let mut output = StepOutput::backward(loss, model);
        output.correct = Some(correct);
        Ok(output)
    }
}
