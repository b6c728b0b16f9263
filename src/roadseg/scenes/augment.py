"""Training crops: turned, flipped and recoloured by albumentations, scaled and placed here, so that only what a crop
shows is read.

In: an image (uint8 HWC RGB 0-255) and its mask (uint8 HW, train ids, 255 = ignore). Out: the same pair at the crop's
size. What a crop looks like depends on its seed alone, never on which worker draws it or on what was drawn before.
Also here: `normalise`, the one place that turns pixels into what a network sees.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor

from roadseg.labels import IGNORE

MEAN = (0.485, 0.456, 0.406)
"""ImageNet's mean of R, G, B, of pixel / 255."""
STD = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation of R, G, B, of pixel / 255."""

FILL = tuple(round(255 * mean) for mean in MEAN)
"""Of an image where there is no scene: ImageNet's mean colour, R, G, B."""

MULTIPLE = 32
"""Partial crops are a multiple of this, the largest total stride of most networks."""
LEAST = 64
"""Pixels of a partial crop's side, the largest total stride of any. Below it DDRNet's last convolution of stride 2 sees
maps one pixel wide, of which oneDNN 3.12 computes bfloat16 gradients from memory that nobody wrote."""


@dataclass(frozen=True)
class Augmentation:
    """How much crops are changed at random."""

    rotation: float = 0.0
    """Degrees by which a scene is turned at most, either way."""
    zoom: tuple[float, float] = (0.75, 2.0)
    """Smallest and largest zoom of a scene. Below 0.75, most of a whole-scene crop would be padding."""
    colour: float = 1.0
    """Strength of random colours: at 1 brightness and contrast change by a fifth at most, saturation by 20 of 255, hue
    by 10 degrees of 360; at 0 nothing does."""


USUAL = Augmentation()

Augment = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]

# Crops are drawn by our own workers: threads of OpenCV's own would only fight with the training step for the cores.
cv2.setNumThreads(0)


def crop_size(height: int, width: int, share: float) -> tuple[int, int]:
    """Crop (height, width), pixels, for a share (0..1] of a scene's height and width.

    1 is the scene itself, whatever its size; less is rounded to the nearest multiple of 32, at least 64 and at most
    the scene.
    """
    if not 0 < share <= 1:
        raise ValueError(f"`share` (={share}) of a scene's side must be in (0, 1]")
    if share == 1:
        return height, width
    near_h, near_w = (max(LEAST, int(side * share / MULTIPLE + 0.5) * MULTIPLE) for side in (height, width))
    return min(near_h, height), min(near_w, width)


def augmenter(crop: tuple[int, int], how: Augmentation = USUAL, scale: float = 1.0) -> Augment:
    """`augment(image, mask, seed) -> (image, mask)`, both of size `crop` (height, width).

    Scenes are turned, and zoomed about `scale`; of one that is not turned only what the crop shows is read. Images are
    interpolated (bilinear, by area where they shrink), masks take the nearest. What a turned scene, or one smaller than
    the crop, does not cover is ImageNet's mean colour in the image and 255 in the mask. One augmenter serves one thread
    at a time.
    """
    turn = A.Compose(
        [
            A.Rotate(
                (-how.rotation, how.rotation),
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST,
                border_mode=cv2.BORDER_CONSTANT,
                fill=FILL,
                fill_mask=IGNORE,
                p=1,
            )
        ],
        strict=True,  # an argument that albumentations does not know is otherwise dropped with a warning
    )
    light, hue, saturation = 0.2 * how.colour, 5 * how.colour, 20 * how.colour  # hue in OpenCV's half degrees
    colours = [
        A.RandomBrightnessContrast(brightness_limit=light, contrast_limit=light, p=0.6),
        A.HueSaturationValue(hue_shift_limit=hue, sat_shift_limit=saturation, val_shift_limit=0, p=0.3),
    ]
    steps = A.Compose([A.HorizontalFlip(p=0.5), *(colours if how.colour else [])], strict=True)

    def augment(image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        # albumentations heeds no global seed: each crop brings its own. By `set_random_seed` every transform would
        # start from it anew and draw the same number: what is flipped would be brightened as well.
        random, plain = np.random.default_rng(seed), Random(seed)
        if how.rotation:
            turn.set_random_state(random, plain)
            turned = turn(image=image, mask=mask)
            image, mask = turned["image"], turned["mask"]
        zoom = scale * random.uniform(*how.zoom)
        image, mask = _cut(image, mask, crop, zoom, random)
        steps.set_random_state(random, plain)
        pair = steps(image=image, mask=mask)
        return pair["image"], pair["mask"]

    return augment


def _cut(
    image: np.ndarray, mask: np.ndarray, crop: tuple[int, int], zoom: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A crop somewhere in the zoomed scene, or a zoomed scene somewhere in the crop, for each of the two axes."""
    taken, placed = [], []
    for side, wanted in zip(mask.shape, crop, strict=True):
        length = min(side, max(1, round(wanted / zoom)))
        room = min(wanted, max(1, round(side * zoom)))  # what the whole side fills
        here = wanted if length < side else room
        start, at = int(random.integers(side - length + 1)), int(random.integers(wanted - here + 1))
        taken.append(slice(start, start + length))
        placed.append(slice(at, at + here))
    rows, columns = taken
    size = placed[1].stop - placed[1].start, placed[0].stop - placed[0].start
    shown = cv2.resize(image[rows, columns], size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    ids = cv2.resize(mask[rows, columns], size, interpolation=cv2.INTER_NEAREST_EXACT)
    if size == crop[::-1]:
        return shown, ids
    whole, labels = np.full((*crop, 3), FILL, np.uint8), np.full(crop, IGNORE, np.uint8)
    whole[placed[0], placed[1]] = shown
    labels[placed[0], placed[1]] = ids
    return whole, labels


def normalise(images_BHWC: Tensor) -> Tensor:
    """What a network sees: float32 B3HW, (pixel / 255 - MEAN) / STD, from uint8 BHW3 RGB 0-255.

    The result is a view in the input's memory order, which is torch's `channels_last`.
    """
    width, device = images_BHWC.shape[2], images_BHWC.device
    # in whole rows: three numbers at a time torch takes seven times as long on a CPU
    mean, std = (torch.tensor(values, device=device).mul(255).repeat(width) for values in (MEAN, STD))
    rows = images_BHWC.flatten(2).to(torch.float32, copy=True)
    return rows.sub_(mean).div_(std).unflatten(2, (width, 3)).permute(0, 3, 1, 2)
