// Code snippets, the same texts as those of snippets.py; a test compares them.
const list = v => `[${v.join(", ")}]`;

const NONE = "not expressible: ";

function codeOf(axes, outputs = 1) {
  const each = of => axes.map(of), strides = each(a => a.s), dilations = each(a => a.d);
  const begins = each(a => a.begin), strided = max(...strides) > 1;
  const dilated = max(...dilations) > 1, stride = strided ? `, stride=${perAxis(strides)}` : "";
  const dilation = dilated ? `, dilation=${perAxis(dilations)}` : "";
  const call = (padding, extras) => {
    const said = `padding=${padding}` + (some(extras) ? `, output_padding=${perAxis(extras)}` : "");
    return `(x, w${stride}${said === "padding=0" ? "" : ", " + said}${dilation})`;
  };
  const rows = each(a => tuple([a.begin, a.end])), alike = axes.every(a => a.begin === a.end);
  const grown = each(a => a.begin - a.end + a.extra);
  const growable = axes.every((a, n) => grown[n] >= 0 && grown[n] < max(a.s, a.d));
  const pads = list([...begins, ...each(a => a.end)]), extras = each(a => a.extra);
  const borders = each(a => tuple([a.reach - 1 - a.begin, a.reach - 1 - a.end + a.extra]));
  const rank = axes.length, space = "HW".slice(2 - rank), crop = kerasCrop(axes);
  return {
    tconv: "y = tconv.conv_transpose" + call(alike ? perAxis(begins) : tuple(rows), extras),
    PyTorch: growable
      ? `y = torch.nn.functional.conv_transpose${rank}d${call(perAxis(begins), grown)}`
      : NONE + "needs asymmetric crop, and PyTorch crops both sides alike\n" +
        "# crop y afterwards",
    ONNX: axes.every(a => a.extra < a.s)
      ? 'node = onnx.helper.make_node(\n    "ConvTranspose", ["x", "w"], ["y"], ' +
        `strides=${list(strides)}, pads=${pads}` +
        (some(extras) ? `, output_padding=${list(extras)}` : "") +
        (dilated ? `, dilations=${list(dilations)}` : "") + "\n)"
      : NONE + "ONNX wants output_padding smaller than the stride",
    Keras: strided && dilated
      ? NONE + "Keras refuses dilation together with a stride"
      : !crop ? NONE + 'Keras crops as "valid" or "same" does, and not by number'
      : `layer = keras.layers.Conv${rank}DTranspose(\n    ${outputs}, ${tuple(each(a => a.k))}, ` +
        `strides=${tuple(strides)}, ${crop}` +
        (dilated ? `, dilation_rate=${tuple(dilations)}` : "") + ", use_bias=False\n)\n" +
        `# its kernel is numpy.moveaxis(w, (0, 1), (-1, -2)), x is channels last`,
    JAX: `y = jax.lax.conv_transpose(\n    x, w, strides=${tuple(strides)}, ` +
      `padding=${tuple(borders)},${dilated ? ` rhs_dilation=${tuple(dilations)},` : ""}\n` +
      `    dimension_numbers=("NC${space}", "OI${space}", "NC${space}"), ` +
      "transpose_kernel=True,\n)\n" +
      "# without transpose_kernel=True JAX leaves the kernel unflipped: another result",
  };
}

// The argument of Keras, "valid" or "same" with or without output_padding, that gives this crop.
function kerasCrop(axes) {
  const odd = a => a.reach % 2, half = size => max(floor(size / 2), 0);
  const every = (begin, extra) => axes.every(a => {
    const more = extra(a);
    return a.begin === begin(a, more) && more >= 0 && more < a.s;
  });
  const none = () => 0, beyond = a => a.o - a.full;
  const kept = a => a.o - (a.i - 1) * a.s - odd(a);
  const withExtras = extra => `, output_padding=${perAxis(axes.map(extra))}`;
  if (axes.every(a => !a.begin && beyond(a) === max(a.s - a.reach, 0))) return 'padding="valid"';
  const filled = a => a.begin === half(a.reach - a.s) && a.o === a.i * a.s;
  if (axes.every(filled)) return 'padding="same"';
  if (every(none, beyond)) return 'padding="valid"' + withExtras(beyond);
  const same = (a, more) => half(a.reach - odd(a) - more);
  if (every(same, kept)) return 'padding="same"' + withExtras(kept);
  return "";
}
