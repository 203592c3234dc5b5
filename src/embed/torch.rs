//! The libtorch backend: a TorchScript that takes uint8 `[N, H, W, 3]` and gives float32 `[N, D]`, and by its method `cells`, where the card says that it
//! has one, a list of float32 `[N, C, h, w]`. The only file that knows `tch`.

use tch::{CModule, Cuda, Device, IValue, Kind, TchError, Tensor};

use super::cells::card_of;
use super::{Backend, Cells, CellsPart, ModelCard, Network, check_sizes};
use crate::archive::RowsProvenance;
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::ModelInput;

/// The method that gives the features before pooling.
const CELLS: &str = "cells";
/// What ran the network; `tch` is bound to one libtorch version.
const ENGINE: &str = "tch 0.26 libtorch 2.13.0";
/// Calls before the first request: TorchScript records the first and compiles at the second.
const WARM_UP_CALLS: usize = 3;

/// A network on a device.
pub(super) struct TorchBackend {
    card: ModelCard,
    module: CModule,
    device: Device,
}

impl TorchBackend {
    /// Loads a network, without running it.
    ///
    /// # Errors
    /// `Damaged` for what is no TorchScript; `InvalidRequest` for a device that is not there.
    pub fn load(network: Network, device: &str) -> Result<Self> {
        let Network { card, script } = network;
        let device = pick_device(device, Cuda::device_count().try_into().unwrap_or(0))?;
        let module = load_elsewhere(&script, device).map_err(|error| {
            let message = format!(
                "the network `{}` is not a TorchScript that this libtorch loads",
                card.name
            );
            Error::with_source(ErrorKind::Damaged, message, error)
        })?;
        Ok(Self { card, module, device })
    }

    /// The inputs as uint8 `[N, H, W, 3]` on the device.
    fn images(&self, inputs: &[ModelInput]) -> Result<Tensor, TchError> {
        let batch = inputs
            .iter()
            .map(|input| input.pixels.as_slice())
            .collect::<Vec<_>>()
            .concat();
        let spec = self.card.input();
        let shape = [inputs.len() as i64, spec.height.into(), spec.width.into(), 3];
        Tensor::f_from_data_size(&batch, &shape, Kind::Uint8)?.f_to_device(self.device)
    }

    /// One image to the float32 `[C, h, w]` of each part.
    fn parts(&self, input: &ModelInput) -> Result<Vec<CellsPart>> {
        let wrong = || {
            Error::new(
                ErrorKind::Damaged,
                "the network's cells are not of the shape that cells have",
            )
        };
        let images = self.images(std::slice::from_ref(input)).map_err(failed)?;
        let answer = tch::no_grad(|| self.module.method_is(CELLS, &[IValue::Tensor(images)])).map_err(failed)?;
        let tensors = match answer {
            IValue::TensorList(tensors) => tensors,
            IValue::GenericList(values) => {
                let tensor = |value| match value {
                    IValue::Tensor(tensor) => Ok(tensor),
                    _ => Err(wrong()),
                };
                values.into_iter().map(tensor).collect::<Result<_>>()?
            }
            _ => return Err(wrong()),
        };
        let part = |tensor: &Tensor| {
            let [1, channels, rows, columns] = tensor.size()[..] else {
                return Err(wrong());
            };
            let mut values = vec![0f32; tensor.numel()];
            to_host(tensor)
                .and_then(|tensor| tensor.f_copy_data(&mut values, tensor.numel()))
                .map_err(failed)?;
            CellsPart::new(channels as usize, rows as usize, columns as usize, values).ok_or_else(wrong)
        };
        tensors.iter().map(part).collect()
    }
}

fn to_host(tensor: &Tensor) -> Result<Tensor, TchError> {
    tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()
}

fn failed(error: TchError) -> Error {
    Error::with_source(ErrorKind::Unavailable, "the network can't be run", error)
}

impl Backend for TorchBackend {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn warm_up(&mut self) -> Result<()> {
        // libtorch counts the machine's cores; a container may have fewer. The setting belongs to the thread that makes it.
        let cores = std::thread::available_parallelism().map_or(1, |n| i32::try_from(n.get()).unwrap_or(i32::MAX));
        tch::set_num_threads(cores.min(tch::get_num_threads()).max(1));
        let spec = self.card.input();
        let pixels = vec![0; spec.width as usize * spec.height as usize * 3];
        let input = ModelInput {
            width: spec.width,
            height: spec.height,
            pixels,
        };
        for _ in 0..WARM_UP_CALLS {
            self.embed(std::slice::from_ref(&input))?;
        }
        Ok(())
    }

    fn embed(&mut self, inputs: &[ModelInput]) -> Result<Vec<Vec<f32>>> {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        check_sizes(&self.card, inputs)?;
        let images = self.images(inputs).map_err(failed)?;
        let vectors = tch::no_grad(|| self.module.forward_ts(&[images]))
            .and_then(|vectors| to_host(&vectors))
            .map_err(failed)?;
        if vectors.size() != [inputs.len() as i64, self.card.dimension as i64] {
            let message = format!(
                "the network gave a tensor of shape {:?} for {} images, its card says {} components",
                vectors.size(),
                inputs.len(),
                self.card.dimension
            );
            return Err(Error::new(ErrorKind::Damaged, message));
        }
        let mut values = vec![0f32; inputs.len() * self.card.dimension];
        let count = values.len();
        vectors.f_copy_data(&mut values, count).map_err(failed)?;
        Ok(values.chunks_exact(self.card.dimension).map(<[f32]>::to_vec).collect())
    }

    fn cells(&mut self, inputs: &[ModelInput]) -> Result<Vec<(Vec<f32>, Cells)>> {
        let card = card_of(&self.card)?.clone();
        let vectors = self.embed(inputs)?;
        // One by one: the cells of a batch are larger than the batch, and few are asked for.
        let one = |(input, vector): (&ModelInput, Vec<f32>)| {
            let cells = Cells::new(self.parts(input)?, &card, &vector)?;
            Ok((vector, cells))
        };
        inputs.iter().zip(vectors).map(one).collect()
    }

    fn provenance(&self) -> RowsProvenance {
        let device = match self.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".into(),
        };
        RowsProvenance {
            precision: self.card.precision.clone(),
            device,
            engine: ENGINE.into(),
        }
    }
}

/// Loads a network on a thread that ends with it.
///
/// OpenMP keeps a set of helper threads for every thread that computes, and loading computes. Were this the caller's, its idle helpers would keep
/// those of the model thread from spinning between layers, which doubles the time of a single image (15 instead of 7.5 ms, EfficientNet-Lite0 on
/// two cores).
fn load_elsewhere(mut script: &[u8], device: Device) -> Result<CModule, Box<dyn std::error::Error + Send + Sync>> {
    std::thread::scope(|scope| {
        let loaded = scope
            .spawn(move || CModule::load_data_on_device(&mut script, device))
            .join();
        Ok(loaded.map_err(|_| "libtorch panicked while loading")??)
    })
}

/// `auto` is the first CUDA device, else the CPU; `found` is the number of CUDA devices that libtorch sees.
fn pick_device(device: &str, found: usize) -> Result<Device> {
    let refuse = |message: String| Err(Error::new(ErrorKind::InvalidRequest, message));
    let index = match device {
        "cpu" => return Ok(Device::Cpu),
        "auto" if found == 0 => return Ok(Device::Cpu),
        "auto" | "cuda" => 0,
        _ => match device.strip_prefix("cuda:").map(str::parse::<usize>) {
            Some(Ok(index)) => index,
            _ => return refuse(format!("unknown device `{device}`: it is auto, cpu or cuda:N")),
        },
    };
    match found {
        0 => refuse(format!(
            "device `{device}` is not there: this libtorch sees no CUDA device, use `cpu` or `auto`"
        )),
        _ if index >= found => refuse(format!(
            "device `{device}` is not there: libtorch sees cuda:0 to cuda:{}",
            found - 1
        )),
        _ => Ok(Device::Cuda(index)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::SCRIPT_FILE;
    use super::*;
    use sha2::{Digest, Sha256};
    use std::path::Path;

    const SIDE: i64 = 24;
    const DIMENSION: i64 = 16;

    /// Saves what `network` computes as a model folder of 24×24 images and 16 components.
    fn folder(mut network: impl FnMut(&Tensor) -> Tensor) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let example = Tensor::zeros([2, SIDE, SIDE, 3], (Kind::Uint8, Device::Cpu));
        let mut traced = |inputs: &[Tensor]| vec![network(&inputs[0])];
        let module = CModule::create_by_tracing("Tiny", "forward", &[example], &mut traced).unwrap();
        module.save(dir.path().join(SCRIPT_FILE)).unwrap();
        write_card(dir.path());
        dir
    }

    fn load(dir: &Path) -> Result<TorchBackend> {
        TorchBackend::load(Network::read(dir)?, "cpu")
    }

    fn write_card(dir: &Path) {
        let digest = hex::encode(Sha256::digest(std::fs::read(dir.join(SCRIPT_FILE)).unwrap()));
        let mut card = serde_json::json!({
            "format": 1, "name": "tiny", "architecture": "Tiny", "weights": {"origin": "test", "licence": "MIT", "sha256": "00".repeat(32)},
            "layers": ["relu"], "pooling": "avg", "views": ["whole"], "dimension": DIMENSION,
            "input": {"width": SIDE, "height": SIDE, "fit": "squeeze"}, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0],
            "pixel_pipeline": "medsearch-pixels/1 squeeze 24x24 bilinear rgb mean=0,0,0 std=1,1,1", "precision": "f32",
            "torchscript_sha256": digest, "exported_with": "tch", "space": "00".repeat(16), "seeded": 7,
        });
        let space = serde_json::from_value::<ModelCard>(card.clone()).unwrap().space().id();
        card["space"] = space.to_string().into();
        std::fs::write(dir.join("model.json"), card.to_string()).unwrap();
    }

    fn tiny() -> impl FnMut(&Tensor) -> Tensor {
        tch::manual_seed(7);
        let weight = Tensor::randn([DIMENSION, 3, 5, 5], (Kind::Float, Device::Cpu));
        move |images| {
            let pixels = images.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
            let features = pixels
                .conv2d(&weight, None::<&Tensor>, [2, 2], [2, 2], [1, 1], 1)
                .relu();
            features.mean_dim([2i64, 3].as_slice(), false, Kind::Float)
        }
    }

    fn input(seed: usize) -> ModelInput {
        let bytes = (SIDE * SIDE * 3) as usize;
        let pixels = (0..bytes).map(|i| (i * (2 * seed + 3) / 7 + seed * 40) as u8).collect();
        ModelInput {
            width: SIDE as u32,
            height: SIDE as u32,
            pixels,
        }
    }

    fn cosine(a: &[f32], b: &[f32]) -> f64 {
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    #[test]
    fn a_batch_of_32_equals_32_single_ones() {
        let dir = folder(tiny());
        let mut backend = load(dir.path()).unwrap();
        backend.warm_up().unwrap();
        assert_eq!(backend.provenance().device, "cpu");
        let inputs: Vec<_> = (0..32).map(input).collect();
        let batch = backend.embed(&inputs).unwrap();
        for (i, (one, together)) in inputs.iter().zip(&batch).enumerate() {
            let alone = backend.embed(std::slice::from_ref(one)).unwrap().remove(0);
            assert_eq!(alone.len(), DIMENSION as usize);
            assert!(cosine(&alone, together) > 0.999_999, "image {i}");
        }
        assert!(
            cosine(&batch[0], &batch[1]) < 0.999_99,
            "different images, different vectors"
        );
        assert!(backend.embed(&[]).unwrap().is_empty());
    }

    #[test]
    fn another_file_than_the_cards_is_refused() {
        let dir = folder(tiny());
        let script = dir.path().join(SCRIPT_FILE);
        let mut bytes = std::fs::read(&script).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&script, bytes).unwrap();
        let error = load(dir.path()).err().unwrap();
        assert!(error.to_string().contains("is not the file that the card"), "{error}");
        std::fs::write(&script, b"no TorchScript at all").unwrap();
        write_card(dir.path());
        let error = load(dir.path()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains("this libtorch loads"), "{error}");
    }

    #[test]
    fn a_network_of_another_shape_is_an_error_not_a_crash() {
        let dir = folder(|images| {
            images
                .to_kind(Kind::Float)
                .mean_dim([1i64, 2].as_slice(), false, Kind::Float)
        });
        let error = load(dir.path()).unwrap().warm_up().unwrap_err();
        assert!(error.to_string().contains("[1, 3]"), "{error}");
    }

    #[test]
    fn a_cpp_exception_is_an_error_not_a_crash() {
        // Right for the two images it is traced with, impossible for one.
        let flat = SIDE * SIDE * 3;
        let dir = folder(|images| images.to_kind(Kind::Float).reshape([2, flat]).slice(1, 0, DIMENSION, 1));
        let error = load(dir.path()).unwrap().warm_up().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn devices() {
        let refused = |device, found| pick_device(device, found).unwrap_err().to_string();
        assert_eq!(pick_device("auto", 0).unwrap(), Device::Cpu);
        assert_eq!(pick_device("auto", 2).unwrap(), Device::Cuda(0));
        assert_eq!(pick_device("cpu", 2).unwrap(), Device::Cpu);
        assert_eq!(pick_device("cuda:1", 2).unwrap(), Device::Cuda(1));
        assert_eq!(pick_device("cuda", 1).unwrap(), Device::Cuda(0));
        assert!(refused("cuda:0", 0).contains("sees no CUDA device"));
        assert!(refused("cuda:2", 2).contains("cuda:0 to cuda:1"));
        assert!(refused("gpu", 1).contains("auto, cpu or cuda:N"));
        assert!(refused("cuda:x", 1).contains("auto, cpu or cuda:N"));
    }
}
