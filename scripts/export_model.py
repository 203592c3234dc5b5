#!/usr/bin/env python3
"""Export a network as TorchScript with a card: models/NAME/model.pt and model.json.

scripts/export_model.py --model efficientnet_lite0 --out models/efficientnet_lite0
scripts/export_model.py --model efficientnet_lite0 --recipe layers --out models/efficientnet_lite0_layers
scripts/export_model.py --model own.pt --name own --input-size 224 --mean 0.5 --std 0.25 --out models/own
"""

import argparse
import sys
from pathlib import Path

import torch

from medsearch_py import networks, script_file
from medsearch_py.export import PRECISIONS, ExportError, export
from medsearch_py.weights import WeightsError


def main() -> int:
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        result = export(network(args), args.out, args.precision)
    except (WeightsError, ExportError) as error:
        print(f"export_model: {error}", file=sys.stderr)
        return 1
    card = result["card"]
    print(f"eager = TorchScript: cosine >= {result['cosine_to_eager']:.7f}")
    print(f"batch of 32 = single images: cosine >= {result['cosine_batch_to_single']:.7f}")
    print(f"{args.out}: {card['architecture']}, {card['dimension']} dimensions, {card['precision']}, {card['space']}")
    return 0


def network(args: argparse.Namespace) -> networks.Network:
    if args.model.endswith(".pt"):
        return script_file.open_script(
            Path(args.model),
            args.name or Path(args.model).stem,
            args.input_size or 224,
            three(args.mean or [0.485, 0.456, 0.406]),
            three(args.std or [0.229, 0.224, 0.225]),
            args.licence or "as given with the file",
        )
    wish = networks.Wish(args.weights, args.licence, args.seed, args.input_size, args.recipe)
    return networks.build(args.model, wish)


def three(values: list[float]) -> list[float]:
    return values * 3 if len(values) == 1 else values


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help=f"a TorchScript file, or {', '.join(networks.NAMES)}")
    parser.add_argument("--out", required=True, type=Path, help="folder for model.pt and model.json")
    parser.add_argument(
        "--recipe",
        choices=networks.RECIPES,
        default="head",
        help="what the vector is made of: the last layer, or four layers at 384 pixels (EfficientNet-Lite only)",
    )
    parser.add_argument("--weights", type=Path, help="state dict (.pth) instead of the published weights")
    parser.add_argument("--licence", help="licence of --weights, for the card")
    parser.add_argument("--seed", type=int, help="seeded random weights, for tests")
    parser.add_argument("--precision", choices=PRECISIONS, default="f32", help="default %(default)s")
    parser.add_argument("--input-size", type=int, help="side of the square input in pixels")
    parser.add_argument("--name", help="name of a TorchScript file's model, default its file name")
    parser.add_argument("--mean", type=float, nargs="+", help="one or three, on values 0..1 (TorchScript file only)")
    parser.add_argument("--std", type=float, nargs="+", help="one or three, on values 0..1 (TorchScript file only)")
    parser.add_argument("--threads", type=int, help="CPU threads, default all")
    args = parser.parse_args()
    if args.model.endswith(".pt"):
        if not Path(args.model).is_file():
            parser.error(f"no file `{args.model}`")
    elif args.model not in networks.NAMES:
        parser.error(f"unknown model `{args.model}`, one of {', '.join(networks.NAMES)}")
    if args.recipe != "head" and args.model not in networks.RECIPES[args.recipe]:
        having = ", ".join(networks.RECIPES[args.recipe])
        parser.error(f"recipe `{args.recipe}` is for {having}, not for `{args.model}`")
    for values in (args.mean, args.std):
        if values is not None and len(values) not in (1, 3):
            parser.error("--mean and --std take one number or three")
    if args.weights is not None and not args.weights.is_file():
        parser.error(f"no file `{args.weights}`")
    return args


if __name__ == "__main__":
    sys.exit(main())
