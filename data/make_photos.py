"""Makes data/photos from scikit-image's pictures: smaller, so that the repository stays small.

    python data/make_photos.py SKIMAGE_DATA_FOLDER

SKIMAGE_DATA_FOLDER holds the eleven files named in data/README.md (`skimage/data` of a scikit-image wheel).
Colour and grey photographs become JPEG of quality 92 with a long side of at most 640; the silhouette and the page of
text keep PNG. Needs Pillow. Run once; data/make_samples.py only reads what this wrote.
"""
import sys
from pathlib import Path

from PIL import Image

PHOTOS = ["astronaut.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png",
          "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg"]
KEPT_PNG = ["horse.png", "text.png"]
LONG_SIDE = 640


def main() -> None:
    source, target = Path(sys.argv[1]), Path(__file__).parent / "photos"
    target.mkdir(exist_ok=True)
    for name in PHOTOS:
        photo = Image.open(source / name)
        photo.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
        photo.save(target / f"{Path(name).stem}.jpg", quality=92, optimize=True)
    for name in KEPT_PNG:
        Image.open(source / name).save(target / name, optimize=True)


if __name__ == "__main__":
    main()
