"""Odd images that people really have, and the pixels Pillow and Transformers make of them.

  pip install transformers==5.24 pillow numpy
  python make_images.py            # writes beside itself, from ../../../data/photos (public domain and CC0)

NAME.EXT is the encoded image. NAME.EXT.white.png is the 48 x 48 square of CLIPImageProcessor on Pillow, before rescaling and
normalising. NAME.EXT.drop.png, where it is another, is the square of what `convert("RGB")` gives, and NAME.EXT.upright.png, where it
is another, the square of what `ImageOps.exif_transpose` gives (on white). `photo.png.*.png` are squares of other processors.
"""
import io, os, struct, warnings, zlib
import numpy as np
from PIL import Image, ImageOps
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

warnings.simplefilter("ignore")
HERE = os.path.dirname(os.path.abspath(__file__))
PHOTOS = os.path.join(HERE, "..", "..", "..", "data", "photos")
SIDE = 48
RAW = dict(do_rescale=False, do_normalize=False, do_convert_rgb=True, resample=3)
SQUARE = {"height": SIDE, "width": SIDE}
CLIP = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SQUARE, **RAW)
OTHERS = {
    "pad": LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": SIDE}, crop_size=SQUARE, **RAW),
    "none": SiglipImageProcessorPil(size=SQUARE, **RAW),
    "resize-to": CLIPImageProcessorPil(size={"shortest_edge": 60}, crop_size=SQUARE, **RAW),
}


def encoded(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def chunk(tag, data):
    return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))


def png(rows, width, depth, colour_type, extra=b""):
    data = b"".join(b"\0" + row for row in rows)
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def gif(image, canvas, place, transparent=None, local=False):
    """The frame at `place` of a canvas, by changing the descriptors of what Pillow writes."""
    options = {} if transparent is None else {"transparency": transparent}
    data = bytearray(encoded(image, "GIF", interlace=False, **options))
    data[6:10] = struct.pack("<HH", *canvas)
    at = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    data[at + 1:at + 5] = struct.pack("<HH", *place)
    return bytes(data)


def riff(chunks):
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def webp_frame(image, canvas, place, alpha, **options):
    """One frame at `place` of an animation's canvas."""
    still = encoded(image, "WEBP", exact=True, **options)[12:]
    if still.startswith(b"VP8X"):
        still = still[18:]
    three = lambda value: struct.pack("<I", value)[:3]
    head = three(place[0] // 2) + three(place[1] // 2) + three(image.width - 1) + three(image.height - 1) + three(100) + b"\0"
    body = head + still
    vp8x = b"VP8X" + struct.pack("<I", 10) + bytes([0x02 | (0x10 if alpha else 0), 0, 0, 0]) + three(canvas[0] - 1) + three(canvas[1] - 1)
    anim = b"ANIM" + struct.pack("<I", 6) + bytes([10, 20, 30, 255]) + b"\0\0"
    frame = b"ANMF" + struct.pack("<I", len(body)) + body
    return riff(vp8x + anim + frame + frame)


def bmp(rows, width, height, bits, compression=0, masks=b"", header=40, top_down=False):
    info = struct.pack("<IiiHHIIiiII", header, width, -height if top_down else height, 1, bits, compression, 0, 2835, 2835, 0, 0)
    head = info + (masks if header == 40 else masks + bytes(header - 40 - len(masks)))
    offset = 14 + len(head)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + head + rows


def bmp16(rgb, green_bits, compression, masks=b""):
    r, g, b = (rgb[:, :, n].astype(np.uint16) for n in range(3))
    values = (r >> 3 << (5 + green_bits)) | (g >> (8 - green_bits) << 5) | (b >> 3)
    rows = np.pad(values, ((0, 0), (0, values.shape[1] % 2)))[::-1].astype("<u2").tobytes()
    return bmp(rows, rgb.shape[1], rgb.shape[0], 16, compression, masks)


def images():
    photo = Image.open(os.path.join(PHOTOS, "chelsea.jpg")).convert("RGB")
    small = photo.crop((90, 40, 242, 154)).resize((61, 46), Image.BICUBIC)
    w, h = small.size
    rgb = np.asarray(small)
    mask = Image.fromarray(np.tile(np.linspace(0, 255, w).astype(np.uint8), (h, 1)))
    rgba = small.copy(); rgba.putalpha(mask)
    grey = small.convert("L"); grey8 = np.asarray(grey)
    wide = rgb.astype(np.uint16) * 256 + rgb[::-1].astype(np.uint16)
    trns = lambda *values: chunk(b"tRNS", b"".join(struct.pack(">H", value) for value in values))
    middle = int(np.bincount(grey8.ravel()).argmax())
    yield "photo.png", encoded(small, "PNG", optimize=True)
    yield "grey-trns.png", png([row.tobytes() for row in grey8], w, 8, 0, trns(middle))
    yield "grey-16-trns.png", png([(row // 2).astype(">u2").tobytes() for row in grey8.astype(np.uint16)], w, 16, 0, trns(middle // 2))
    yield "grey-16-bright-trns.png", png([(row.astype(np.uint16) * 3).astype(">u2").tobytes() for row in grey8], w, 16, 0, trns(300))
    packed = [bytes(sum((int(v) >> 6) << (6 - 2 * n) for n, v in enumerate(row[i:i + 4])) for i in range(0, w, 4)) for row in grey8]
    yield "grey-2-trns.png", png(packed, w, 2, 0, trns(1))
    yield "grey-2-trns-85.png", png(packed, w, 2, 0, trns(85))
    yield "rgb-trns.png", png([row.tobytes() for row in rgb], w, 8, 2, trns(*(int(v) for v in rgb[10, 10])))
    yield "rgb-16-trns.png", png([row.astype(">u2").tobytes() for row in wide], w, 16, 2, trns(*(int(v) for v in rgb[10, 10])))
    yield "rgba.png", encoded(rgba, "PNG")
    yield "grey-alpha.png", encoded(Image.merge("LA", (grey, mask)), "PNG")
    yield "palette-alphas.png", encoded(small.quantize(16), "PNG", transparency=bytes(range(0, 256, 16)))
    yield "interlaced.png", interlaced(rgb)
    whole = encoded(small, "PNG", optimize=True)
    yield "no-iend.png", whole[:whole.index(b"IEND") - 4]
    yield "cut-checksum.png", whole[:whole.index(b"IEND") - 4 - 7]
    palette = small.quantize(32)
    yield "offset.gif", gif(palette, (80, 70), (10, 20))
    yield "offset-transparent.gif", gif(palette, (80, 70), (10, 20), transparent=3)
    yield "beyond.gif", gif(palette, (40, 30), (10, 20))
    yield "grey-offset.gif", gif(grey, (80, 70), (6, 4))
    yield "interlaced.gif", encoded(palette, "GIF", interlace=True)
    flipped = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    yield "animated.webp", encoded(rgba, "WEBP", save_all=True, append_images=[flipped], lossless=True, exact=True, duration=100)
    yield "animated-lossy.webp", encoded(small, "WEBP", save_all=True, append_images=[flipped], quality=80, duration=100)
    yield "offset.webp", webp_frame(small, (80, 70), (10, 20), alpha=False, lossless=True)
    yield "offset-alpha.webp", webp_frame(rgba, (80, 70), (10, 20), alpha=True, lossless=True)
    yield "offset-lossy-alpha.webp", webp_frame(rgba, (80, 70), (10, 20), alpha=True, quality=80)
    yield "alpha.webp", encoded(rgba, "WEBP", quality=80)
    masks = lambda *values: struct.pack("<%dI" % len(values), *values)
    yield "565.bmp", bmp16(rgb, 6, 3, masks(0xF800, 0x7E0, 0x1F))
    yield "555.bmp", bmp16(rgb, 5, 3, masks(0x7C00, 0x3E0, 0x1F))
    yield "555-plain.bmp", bmp16(rgb, 5, 0)
    bgra = np.asarray(rgba)[:, :, [2, 1, 0, 3]]
    yield "32.bmp", bmp(bgra[::-1].tobytes(), w, h, 32)
    yield "32-top-down.bmp", bmp(bgra.tobytes(), w, h, 32, top_down=True)
    alpha_masks = masks(0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    yield "32-alpha.bmp", bmp(bgra[::-1].tobytes(), w, h, 32, 3, alpha_masks, header=108)
    for name, options in {"lzw": {"compression": "tiff_lzw"}, "deflate": {"compression": "tiff_adobe_deflate"}, "packbits": {"compression": "packbits"}}.items():
        yield f"rgb-{name}.tiff", encoded(small, "TIFF", **options)
    yield "grey.tiff", encoded(grey, "TIFF")
    yield "grey-16.tiff", encoded(Image.fromarray((grey8.astype(np.uint16) * 2)), "TIFF")
    yield "bilevel.tiff", encoded(small.convert("1"), "TIFF")
    yield "rgba.tiff", encoded(rgba, "TIFF")
    turned = Image.Exif(); turned[0x0112] = 5
    yield "turned-5.tiff", encoded(small, "TIFF", exif=turned)
    yield "lossless.jp2", encoded(small, "JPEG2000", irreversible=False)
    yield "grey.jp2", encoded(grey, "JPEG2000", irreversible=False)
    yield "alpha.jp2", encoded(rgba, "JPEG2000", irreversible=False)
    yield "lossy.jp2", encoded(small, "JPEG2000", irreversible=True, quality_mode="dB", quality_layers=[40])
    for orientation in range(2, 9):
        exif = Image.Exif(); exif[0x0112] = orientation
        yield f"turned-{orientation}.jpg", encoded(small, "JPEG", quality=85, exif=exif)
    exif = Image.Exif(); exif[0x0112] = 8
    yield "turned-8.png", encoded(small, "PNG", exif=exif)
    yield "turned-8.webp", encoded(small, "WEBP", lossless=True, exif=exif)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    yield "turned-by-xmp.jpg", encoded(small, "JPEG", quality=85, xmp=xmp)


def interlaced(rgb):
    """Adam7, which Pillow reads and does not write."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    data = b""
    for x, y, dx, dy in passes:
        data += b"".join(b"\0" + row.tobytes() for row in rgb[y::dy, x::dx] if row.size)
    header = struct.pack(">IIBBBBB", rgb.shape[1], rgb.shape[0], 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def square(processor, image):
    pixels = processor(images=image, return_tensors="np")["pixel_values"][0]
    assert pixels.dtype == np.uint8 and pixels.shape == (3, SIDE, SIDE), (pixels.dtype, pixels.shape)
    return pixels


def main():
    for name in os.listdir(HERE):
        if name != os.path.basename(__file__):
            os.remove(os.path.join(HERE, name))
    for name, data in images():
        path = os.path.join(HERE, name)
        open(path, "wb").write(data)
        opened = lambda: Image.open(io.BytesIO(data))
        # Through numpy, for convert() leaves a note on transparency at which Transformers would put white in.
        variants = {
            "white": square(CLIP, opened()),
            "drop": square(CLIP, Image.fromarray(np.asarray(opened().convert("RGB")))),
            "upright": square(CLIP, ImageOps.exif_transpose(opened())),
        }
        if name == "photo.png":
            variants |= {kind: square(processor, opened()) for kind, processor in OTHERS.items()}
        for kind, pixels in variants.items():
            if kind == "white" or not np.array_equal(pixels, variants["white"]):
                Image.fromarray(pixels.transpose(1, 2, 0)).save(f"{path}.{kind}.png", optimize=True)


if __name__ == "__main__":
    main()
