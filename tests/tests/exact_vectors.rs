//! Exact operators held to results that another program made from NUMERICS.md alone
//! (`tests/vectors/exact.py`), on every instruction set and every device that passes the probe.
#![expect(clippy::print_stderr, reason = "a skipped device says so")]

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use pol_core::learner::Batch;
use pol_core::manifest::Terms;
use pol_core::recipe::Recipe;
use pol_core::records::{DataCommitment, Records as _};
use pol_core::schedule::{BatchSource, Schedule};
use pol_exact::Profile;
use pol_exact::optim::AdamConstants;
use pol_exact::probe;
use pol_exact::simd::Isa;
use pol_exact::tensor::{Exact, ExactAdam, ExactSgd, Normalisation, Running};
use pol_models::dataset::DatasetName;
use pol_models::image_learner;
use pol_models::recipe_file::RecipeFile;
use pol_tests::backends;
use serde_json::Value;

/// The vectors, one profile of them, and what to compute with.
struct Bench {
    tables: Value,
    cases: Value,
    exact: Exact,
    device: Device,
    place: String,
}

fn load() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/exact.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Runs `check` wherever exact kernels run: on the CPU with each instruction set, and on devices.
fn everywhere(check: impl Fn(&Bench)) {
    let all = load();
    for profile in Profile::ALL {
        let mut bench = Bench {
            tables: all["tables"].clone(),
            cases: all["profiles"][profile.name()].clone(),
            exact: Exact::new(profile),
            device: Device::flex().autodiff(),
            place: String::new(),
        };
        for isa in Isa::present() {
            isa.make_current();
            bench.place = format!("{profile}, {isa}");
            check(&bench);
        }
        for (backend, device) in backends() {
            if device == Device::flex() {
                continue;
            }
            match probe::passed(&device, profile) {
                Err(error) => eprintln!("skipped: {backend}: {error}"),
                Ok(()) => {
                    bench.device = device.autodiff();
                    bench.place = format!("{profile}, {backend}");
                    check(&bench);
                }
            }
        }
    }
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn pair(value: &Value) -> [usize; 2] {
    [number(&value[0]), number(&value[1])]
}

fn real(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn words(text: &str) -> Vec<f32> {
    (0..text.len() / 8)
        .map(|i| f32::from_bits(u32::from_str_radix(&text[8 * i..8 * i + 8], 16).unwrap()))
        .collect()
}

impl Bench {
    fn list(&self, operator: &str) -> &[Value] {
        self.cases[operator].as_array().unwrap()
    }

    /// The values of a field: as words, or drawn as the file says.
    fn values(&self, field: &Value, count: usize) -> Vec<f32> {
        if let Some(text) = field.as_str() {
            let values = words(text);
            assert_eq!(values.len(), count);
            return values;
        }
        let table = &self.tables[field["table"].as_str().unwrap()];
        let (share, hard) = (
            number(&table["share"]),
            words(table["words"].as_str().unwrap()),
        );
        let mut x = number(&field["seed"]) as u32;
        (0..count)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                match ((x & 15) as usize) < share {
                    true => hard[(x >> 8) as usize % hard.len()],
                    false => (x >> 8) as f32 / (1 << 22) as f32 - 2.0,
                }
            })
            .collect()
    }

    fn tensor<const D: usize>(&self, field: &Value, shape: [usize; D]) -> Tensor<D> {
        let values = self.values(field, shape.iter().product());
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    /// An operand that is differentiated by.
    fn operand<const D: usize>(&self, field: &Value, shape: [usize; D]) -> Tensor<D> {
        self.tensor(field, shape).require_grad()
    }

    /// The gradients where that of `y` is `dy`.
    fn pull<const D: usize>(&self, y: &Tensor<D>, dy: &Value) -> Gradients {
        let shape = y.dims();
        // The gradient of the sum of y·dy is 1·dy.
        let weighted = y.clone() * self.tensor(dy, shape);
        weighted
            .reshape([shape.iter().product::<usize>()])
            .backward()
    }

    #[track_caller]
    fn same<const D: usize>(&self, found: Tensor<D>, case: &Value, field: &str) {
        let Some(expected) = case[field].as_str() else {
            return;
        };
        let found = found.into_data();
        let found: Vec<_> = (found.as_slice::<f32>().unwrap().iter())
            .map(|value| format!("{:08x}", value.to_bits()))
            .collect();
        let expected: Vec<_> = (0..expected.len() / 8)
            .map(|i| &expected[8 * i..8 * i + 8])
            .collect();
        if let Some(at) =
            (0..expected.len()).find(|&at| found.get(at).map(|f| &**f) != Some(expected[at]))
        {
            let inputs = case
                .as_object()
                .unwrap()
                .iter()
                .filter(|(_, value)| !value.is_string());
            let inputs: Vec<_> = inputs
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            panic!(
                "{}, {field} [{at}] is {:?}, not {}: {}",
                self.place,
                found.get(at),
                expected[at],
                inputs.join(", "),
            );
        }
    }
}

#[test]
fn convolutions() {
    everywhere(|bench| {
        for case in bench.list("conv2d") {
            let ([rows, columns], kernel) = (pair(&case["input"]), pair(&case["kernel"]));
            let [batch, from, to] =
                ["batch", "channels_in", "channels_out"].map(|name| number(&case[name]));
            let x = bench.operand(&case["x"], [batch, rows, columns, from]);
            let w = bench.operand(&case["w"], [to, from, kernel[0], kernel[1]]);
            let bias = (!case["bias"].is_null()).then(|| bench.operand(&case["bias"], [to]));
            let (stride, padding) = (pair(&case["stride"]), pair(&case["padding"]));
            let y = bench
                .exact
                .conv2d(x.clone(), w.clone(), bias.clone(), stride, padding);
            let gradients = bench.pull(&y, &case["dy"]);
            bench.same(y, case, "y");
            bench.same(x.grad(&gradients).unwrap(), case, "dx");
            let dw = w.grad(&gradients).unwrap();
            if let Some(digest) = case["dw_sha3"].as_str() {
                let data = dw.clone().into_data();
                let bytes = (data.as_slice::<f32>().unwrap().iter())
                    .flat_map(|value| value.to_bits().to_be_bytes());
                assert_eq!(
                    sha3(bytes.collect()),
                    digest,
                    "{}: {case:.300}",
                    bench.place
                );
            }
            bench.same(dw, case, "dw");
            if let Some(bias) = bias {
                bench.same(bias.grad(&gradients).unwrap(), case, "dbias");
            }
        }
    });
}

fn sha3(bytes: Vec<u8>) -> String {
    use sha3::Digest as _;
    let digest = sha3::Sha3_256::digest(&bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn linear_layers() {
    everywhere(|bench| {
        for case in bench.list("linear") {
            let [rows, inputs, outputs] = ["rows", "inputs", "outputs"].map(|n| number(&case[n]));
            let x = bench.operand(&case["x"], [rows, inputs]);
            let w = bench.operand(&case["w"], [inputs, outputs]);
            let bias = (!case["bias"].is_null()).then(|| bench.operand(&case["bias"], [outputs]));
            let y = bench.exact.linear(x.clone(), w.clone(), bias.clone());
            let gradients = bench.pull(&y, &case["dy"]);
            bench.same(y, case, "y");
            bench.same(x.grad(&gradients).unwrap(), case, "dx");
            bench.same(w.grad(&gradients).unwrap(), case, "dw");
            if let Some(bias) = bias {
                bench.same(bias.grad(&gradients).unwrap(), case, "dbias");
            }
        }
    });
}

#[test]
fn batch_normalisation() {
    everywhere(|bench| {
        for case in bench.list("batch_norm") {
            let (image, fixed) = (pair(&case["image"]), case["fixed"] == true);
            let [batch, channels] = ["batch", "channels"].map(|name| number(&case[name]));
            let shape = [batch, image[0], image[1], channels];
            let x = bench.operand(&case["x"], shape);
            let [gamma, beta] = ["gamma", "beta"].map(|n| bench.operand(&case[n], [channels]));
            let shortcut =
                (!case["shortcut"].is_null()).then(|| bench.operand(&case["shortcut"], shape));
            // A running average that keeps nothing of itself is what was observed.
            let options = Normalisation {
                epsilon: real(&case["epsilon"]) as f32,
                rectified: case["rectified"] == true,
                rate: 1.0,
            };
            let parameters = [gamma.clone(), beta.clone()];
            let y = if fixed {
                let [mean, variance] =
                    ["mean", "variance"].map(|name| bench.tensor(&case[name], [channels]));
                let given = Running { mean, variance };
                let (x, shortcut) = (x.clone(), shortcut.clone());
                (bench.exact).batch_norm_fixed(x, parameters, given, shortcut, options)
            } else {
                let zeros = || Tensor::zeros([channels], &x.device());
                let running = Running {
                    mean: zeros(),
                    variance: zeros(),
                };
                let (x, shortcut) = (x.clone(), shortcut.clone());
                let (y, observed) =
                    (bench.exact).batch_norm(x, parameters, running, shortcut, options);
                bench.same(observed.mean, case, "mean");
                bench.same(observed.variance, case, "variance");
                y
            };
            let gradients = bench.pull(&y, &case["dy"]);
            bench.same(y, case, "y");
            bench.same(x.grad(&gradients).unwrap(), case, "dx");
            bench.same(gamma.grad(&gradients).unwrap(), case, "dgamma");
            bench.same(beta.grad(&gradients).unwrap(), case, "dbeta");
            if let Some(shortcut) = shortcut {
                bench.same(shortcut.grad(&gradients).unwrap(), case, "dshortcut");
            }
        }
        for case in bench.list("running_statistics") {
            // A batch of one pixel has its values as its mean.
            let [average, observed] = ["average", "observed"].map(|name| {
                let count = case[name].as_str().unwrap().len() / 8;
                bench.tensor(&case[name], [count])
            });
            let count = average.dims()[0];
            let options = Normalisation {
                epsilon: 1.0,
                rectified: false,
                rate: real(&case["rate"]),
            };
            let running = Running {
                mean: average.clone(),
                variance: average.clone(),
            };
            let x = observed.reshape([1, 1, 1, count]);
            let (_, moved) =
                (bench.exact).batch_norm(x, [average.clone(), average], running, None, options);
            bench.same(moved.mean, case, "result");
        }
    });
}

#[test]
fn pooling_and_shortcuts() {
    everywhere(|bench| {
        for operator in ["max_pool", "average_pool", "shortcut"] {
            for case in bench.list(operator) {
                let [rows, columns] = pair(&case["input"]);
                let channels = match operator {
                    "shortcut" => &case["channels_in"],
                    _ => &case["channels"],
                };
                let shape = [number(&case["batch"]), rows, columns, number(channels)];
                let x = bench.operand(&case["x"], shape);
                let y = match operator {
                    "max_pool" => {
                        let (window, stride) = (pair(&case["window"]), pair(&case["stride"]));
                        bench.exact.max_pool(x.clone(), window, stride)
                    }
                    "average_pool" => {
                        let (window, stride) = (pair(&case["window"]), pair(&case["stride"]));
                        bench.exact.average_pool(x.clone(), window, stride)
                    }
                    _ => {
                        let (to, stride) = (number(&case["channels_out"]), number(&case["stride"]));
                        bench.exact.shortcut(x.clone(), to, stride)
                    }
                };
                let gradients = bench.pull(&y, &case["dy"]);
                bench.same(y, case, "y");
                bench.same(x.grad(&gradients).unwrap(), case, "dx");
            }
        }
    });
}

#[test]
fn elementwise_operators() {
    everywhere(|bench| {
        for case in bench.list("relu") {
            let x = bench.operand(&case["x"], [number(&case["count"])]);
            let y = bench.exact.relu(x.clone());
            let gradients = bench.pull(&y, &case["dy"]);
            bench.same(y, case, "y");
            bench.same(x.grad(&gradients).unwrap(), case, "dx");
        }
        for case in bench.list("dropout") {
            let count = number(&case["count"]);
            let x = bench.operand(&case["x"], [count]);
            let y = bench
                .exact
                .dropout(x.clone(), bench.tensor(&case["mask"], [count]));
            let gradients = bench.pull(&y, &case["dy"]);
            bench.same(y, case, "y");
            bench.same(x.grad(&gradients).unwrap(), case, "dx");
        }
    });
}

#[test]
fn the_loss() {
    everywhere(|bench| {
        for case in bench.list("cross_entropy") {
            let shape = [number(&case["rows"]), number(&case["classes"])];
            let scores = bench.operand(&case["scores"], shape);
            let targets = bench.tensor(&case["targets"], shape);
            let loss = bench.exact.cross_entropy(scores.clone(), targets);
            let gradients = bench.pull(&loss, &case["dloss"]);
            bench.same(loss, case, "loss");
            bench.same(scores.grad(&gradients).unwrap(), case, "dscores");
        }
    });
}

#[test]
fn elementary_functions() {
    let all = load();
    for profile in Profile::ALL {
        let cases = &all["profiles"][profile.name()];
        for (name, of) in [
            ("exp", pol_exact::math::exp as fn(Profile, f32) -> f32),
            ("ln", pol_exact::math::ln),
        ] {
            let [x, y] = ["x", "y"].map(|field| words(cases[name][field].as_str().unwrap()));
            for (x, y) in x.into_iter().zip(y) {
                let found = of(profile, x);
                assert_eq!(
                    found.to_bits(),
                    y.to_bits(),
                    "{profile}: {name}({x:e}) is {found:e}"
                );
            }
        }
    }
}

#[test]
fn updates() {
    everywhere(|bench| {
        for case in bench.list("sgd") {
            let rule = ExactSgd {
                exact: bench.exact,
                momentum: real(&case["momentum"]),
                dampening: real(&case["dampening"]),
                weight_decay: real(&case["weight_decay"]),
                nesterov: case["nesterov"] == true,
            };
            check_updates(bench, case, &rule);
        }
        for case in bench.list("adam") {
            let constants = AdamConstants {
                beta1: real(&case["beta1"]),
                beta2: real(&case["beta2"]),
                epsilon: real(&case["epsilon"]),
                weight_decay: real(&case["weight_decay"]),
                decoupled: case["decoupled"] == true,
            };
            let exact = bench.exact;
            check_updates(bench, case, &ExactAdam { exact, constants });
        }
    });
}

fn check_updates(bench: &Bench, case: &Value, rule: &impl burn::optim::Optimizer) {
    let count = case["w0"].as_str().unwrap().len() / 8;
    let mut w = bench.tensor(&case["w0"], [count]).inner();
    let mut state = None;
    for (step, gradient) in case["gradients"].as_array().unwrap().iter().enumerate() {
        let gradient = bench.tensor(gradient, [count]).inner();
        (w, state) = rule.step(real(&case["rate"]), w, gradient, state);
        let mut expected = case.clone();
        expected["w"] = case["w"][step].clone();
        bench.same(w.clone(), &expected, "w");
    }
}

#[test]
fn the_first_states_of_the_default_recipe() {
    let digits = DatasetName::Digits.load("".as_ref()).unwrap();
    for expected in load()["recipe"].as_array().unwrap() {
        let mut recipe: Recipe = (RecipeFile::shipped("digits-lenet").unwrap())
            .resolve(digits.train.len())
            .unwrap();
        let numerics = expected["numerics"].as_str().unwrap();
        recipe.numerics = numerics.to_owned().try_into().unwrap();
        assert_eq!(
            recipe.digest().to_string(),
            expected["recipe_digest"],
            "{recipe:?}"
        );
        let data = DataCommitment::of(&digits.train);
        let seed = Terms::new(recipe.clone(), data, 0, BatchSource::Derived, 1).seed;
        let mut learner = image_learner(&recipe, &Device::flex()).unwrap();
        learner.initialise(&seed).unwrap();
        let mut schedule = Schedule::new(seed, digits.train.len(), recipe.batch_size).unwrap();
        for (step, expected) in expected["states"].as_array().unwrap().iter().enumerate() {
            let found = learner.capture().unwrap().digest();
            assert_eq!(found.to_string(), *expected, "{numerics}, state {step}");
            let plan = schedule.batch(step as u64);
            let batch = Batch::new(&plan, &digits.train, &seed).unwrap();
            learner.step(&batch).unwrap();
        }
    }
}
