// Pixels of records in a browser: unpacked without loss, and shaded as they are to be seen.

const BRIGHTER = [255, 90, 50], DARKER = [70, 150, 255]; // as on a sheet

// The inverse of pack_pixels in page.py.
async function unpack(packed, { height, width, channels, bits }) {
  const letters = atob(packed), zipped = new Uint8Array(letters.length);
  for (let i = 0; i < zipped.length; i++) zipped[i] = letters.charCodeAt(i);
  const stream = new Blob([zipped]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = height * width * channels, row = width * channels;
  const values = bits === 8 ? bytes : new Uint16Array(count);
  for (let i = 0; i < count; i++) {
    const step = bits === 8 ? bytes[i] : bytes[i] * 256 + bytes[count + i];
    values[i] = step + (i % row < channels ? 0 : values[i - channels]); // wraps as it did there
  }
  return values;
}

function measureMean(values, place, channels) {
  let sum = 0;
  for (let band = 0; band < channels; band++) sum += values[place * channels + band];
  return sum / channels;
}

// `shade(place)` is a colour from `mix`: a number is many times faster than three.
function paint(layer, { height, width }, shade) {
  Object.assign(layer, { height, width });
  const picture = new ImageData(width, height), colours = new Uint32Array(picture.data.buffer);
  for (let place = 0; place < colours.length; place++) colours[place] = shade(place);
  layer.getContext("2d").putImageData(picture, 0, 0);
}

// Bytes in the order of ImageData on processors that store the low byte first, as all with browsers do.
function mix(red, green, blue) {
  return red | green << 8 | blue << 16 | 255 << 24;
}

// DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT.
function shadeGrey(values, { channels, bits }, [level, width]) {
  const shade = (_, value) => 255 * ((value - level) / Math.max(width, 1e-9) + 0.5);
  const grey = Uint8ClampedArray.from({ length: 2 ** bits }, shade);
  if (channels === 3) {
    return (place) => mix(grey[values[3 * place]], grey[values[3 * place + 1]], grey[values[3 * place + 2]]);
  }
  const colours = Uint32Array.from(grey, (one) => mix(one, one, one));
  return (place) => colours[values[place]];
}

// Colours for `change(place)`, of which `full` has the full colour.
function shadeDifference(change, full) {
  return (place) => {
    const strength = Math.max(-1, Math.min(1, change(place) / full)), share = Math.abs(strength);
    const [red, green, blue] = strength > 0 ? BRIGHTER : DARKER;
    return mix(Math.round(share * red), Math.round(share * green), Math.round(share * blue));
  };
}
