"""Pictures in every mode and format, and the pixels CLIPImageProcessor on Pillow makes of them.

  pip install transformers==5.23 pillow numpy
  python make_pillow.py            # writes beside itself, from ../../../data/photos (public domain and CC0)

NAME.EXT is the encoded picture, NAME.EXT.png the 224 x 224 RGB square before rescaling and normalising.
`jpeg-*.rgb.png` is a JPEG as Pillow decodes it, to tell what the decoder adds from what resizing adds.
"""
import io, os, struct, zlib
import numpy as np
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

HERE = os.path.dirname(os.path.abspath(__file__))
PHOTOS = os.path.join(HERE, "..", "..", "..", "data", "photos")
CLIP = CLIPImageProcessorPil(do_resize=True, size={"shortest_edge": 224}, do_center_crop=True, crop_size={"height": 224, "width": 224},
                             resample=3, do_rescale=False, do_normalize=False, do_convert_rgb=True)


def photo(name, box):
    return Image.open(os.path.join(PHOTOS, name)).convert("RGB").crop(box)


def encoded(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def png16(samples, colour_type):
    """A 16-bit PNG, which Pillow cannot write in colour. samples: [height, width, channels], u16."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    chunk = lambda tag, data: struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def pictures():
    cat = photo("chelsea.jpg", (60, 30, 260, 180))            # 200 x 150
    cup = photo("coffee.jpg", (150, 60, 300, 300))            # 150 x 240
    rocket = photo("rocket.jpg", (220, 20, 420, 320))         # 200 x 300
    small = cat.resize((64, 48), Image.BICUBIC)
    mask = Image.fromarray(np.tile(np.linspace(0, 255, small.width).astype(np.uint8), (small.height, 1)))
    rgba = small.copy(); rgba.putalpha(mask)
    grey = small.convert("L")
    la = grey.copy(); la.putalpha(mask)
    wide = np.asarray(small).astype(np.uint16)
    wide = wide * 256 + (wide[::-1] % 256)
    yield "rgb.png", encoded(cat, "PNG", optimize=True)
    yield "tall.png", encoded(cup, "PNG", optimize=True)
    yield "exact.png", encoded(photo("astronaut.jpg", (0, 0, 224, 224)).quantize(32).convert("RGB"), "PNG", optimize=True)
    yield "one-pixel.png", encoded(Image.new("RGB", (1, 1), (9, 120, 250)), "PNG")
    yield "thread.png", encoded(cat.crop((0, 0, 190, 3)), "PNG")
    yield "rgba.png", encoded(rgba, "PNG")
    yield "grey.png", encoded(grey, "PNG")
    yield "grey-alpha.png", encoded(la, "PNG")
    yield "grey-16.png", png16((wide[:, :, :1] // 200).astype(np.uint16), 0)
    yield "grey-16-bright.png", png16(wide[:, :, :1], 0)
    yield "grey-alpha-16.png", png16(np.concatenate([wide[:, :, :1], wide[:, :, 1:2]], axis=2), 4)
    yield "rgb-16.png", png16(wide, 2)
    yield "rgba-16.png", png16(np.concatenate([wide, wide[:, :, :1]], axis=2), 6)
    yield "palette.png", encoded(small.quantize(64), "PNG")
    yield "palette-alpha.png", encoded(small.quantize(64), "PNG", transparency=3)
    yield "bilevel.png", encoded(small.convert("1"), "PNG")
    yield "four-greys.png", encoded(small.convert("L").quantize(4), "PNG", bits=2)
    frames = [small.quantize(32), small.transpose(Image.Transpose.FLIP_LEFT_RIGHT).quantize(32)]
    yield "frames.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    yield "transparent.gif", encoded(small.quantize(32), "GIF", transparency=5)
    yield "grey.gif", encoded(grey, "GIF")
    yield "lossless.webp", encoded(small, "WEBP", lossless=True)
    yield "lossless-alpha.webp", encoded(rgba, "WEBP", lossless=True, exact=True)
    yield "lossy.webp", encoded(cat, "WEBP", quality=85)
    yield "rgb.bmp", encoded(small, "BMP")
    yield "palette.bmp", encoded(small.quantize(16), "BMP")
    yield "grey.bmp", encoded(grey, "BMP")
    yield "jpeg-420.jpg", encoded(rocket, "JPEG", quality=85, subsampling=2)
    yield "jpeg-422.jpg", encoded(cup, "JPEG", quality=90, subsampling=1)
    yield "jpeg-444.jpg", encoded(cat, "JPEG", quality=90, subsampling=0)
    yield "jpeg-progressive.jpg", encoded(rocket, "JPEG", quality=80, progressive=True)
    yield "jpeg-restart.jpg", encoded(cat, "JPEG", quality=85, restart_marker_blocks=4)
    yield "jpeg-grey.jpg", encoded(cat.convert("L"), "JPEG", quality=85)
    yield "jpeg-cmyk.jpg", encoded(cat.convert("CMYK"), "JPEG", quality=90)
    yield "subsampled-inks.jpg", encoded(cat.convert("CMYK"), "JPEG", quality=90, subsampling=2)
    exif = Image.Exif(); exif[0x0112] = 6
    yield "jpeg-rotated.jpg", encoded(cat, "JPEG", quality=85, exif=exif)


def main():
    for name, data in pictures():
        path = os.path.join(HERE, name)
        open(path, "wb").write(data)
        # Through numpy, for convert() leaves a note on transparency at which Transformers would put white in.
        rgb = Image.fromarray(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        square = CLIP(images=rgb, return_tensors="np")["pixel_values"][0]
        assert square.dtype == np.uint8 and square.shape == (3, 224, 224)
        Image.fromarray(square.transpose(1, 2, 0)).save(path + ".png", optimize=True)
        if name.startswith("jpeg-"):
            rgb.save(path + ".rgb.png", optimize=True)


if __name__ == "__main__":
    main()
