#include "nonn_kernels.h"

#include <string.h>

static inline uint32_t load4(const void *place) {
  uint32_t word;
  memcpy(&word, place, sizeof word);
  return word;
}

#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)
#define NONN_DSP 1

/* Bytes 0 and 2 as two halves of 16 bits; with the rotation, bytes 1 and 3. */
static inline uint32_t signed_even(uint32_t word) {
  uint32_t halves;
  __asm__("sxtb16 %0, %1" : "=r"(halves) : "r"(word));
  return halves;
}
static inline uint32_t signed_odd(uint32_t word) {
  uint32_t halves;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(halves) : "r"(word));
  return halves;
}
static inline uint32_t unsigned_even(uint32_t word) {
  uint32_t halves;
  __asm__("uxtb16 %0, %1" : "=r"(halves) : "r"(word));
  return halves;
}
static inline uint32_t unsigned_odd(uint32_t word) {
  uint32_t halves;
  __asm__("uxtb16 %0, %1, ror #8" : "=r"(halves) : "r"(word));
  return halves;
}
static inline int32_t two_products(uint32_t one, uint32_t other, int32_t sum) {
  __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(one), "r"(other));
  return sum;
}
/* sum + ((one * other + 2**31) >> 32) */
static inline int32_t high_product(int32_t one, int32_t other, int32_t sum) {
  __asm__("smmlar %0, %1, %2, %0" : "+r"(sum) : "r"(one), "r"(other));
  return sum;
}
#else
static inline int32_t high_product(int32_t one, int32_t other, int32_t sum) {
  return sum + (int32_t)(((int64_t)one * other + ((int64_t)1 << 31)) >> 32);
}
#endif

/* A byte as high as high_product can take it. */
static inline int32_t raised(uint8_t value) { return (int32_t)((uint32_t)value << 23); }

static inline uint8_t cut(int32_t value) {
#if defined(__ARM_FEATURE_SAT) && defined(__GNUC__)
  __asm__("usat %0, #8, %0" : "+r"(value));
  return (uint8_t)value;
#else
  return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
#endif
}

static inline uint8_t scaled(int32_t sum, int32_t multiplier, int64_t offset, unsigned shift) {
  return cut((int32_t)(((int64_t)sum * multiplier + offset) >> 32) >> shift);
}

void nonn_image(uint8_t *image, uint32_t pixels, uint32_t channels, const uint8_t *table) {
  for (uint32_t pixel = 0; pixel < pixels; pixel++)
    for (uint32_t channel = 0; channel < channels; channel++, image++)
      *image = table[256 * channel + *image];
}

/* Four sums of products of two columns with the weights of two output channels. */
static inline void products(const uint8_t *x0, const uint8_t *x1, const int8_t *w, uint32_t words,
                            int32_t sums[4]) {
  int32_t s00 = sums[0], s01 = sums[1], s10 = sums[2], s11 = sums[3];
  const int8_t *end = w + 8 * words;
  for (; w != end; w += 8, x0 += 4, x1 += 4) {
#ifdef NONN_DSP
    uint32_t a = load4(w), b = load4(w + 4), x = load4(x0);
    uint32_t a0 = signed_even(a), a1 = signed_odd(a), b0 = signed_even(b), b1 = signed_odd(b);
    uint32_t even = unsigned_even(x), odd = unsigned_odd(x);
    s00 = two_products(a0, even, s00);
    s10 = two_products(b0, even, s10);
    s00 = two_products(a1, odd, s00);
    s10 = two_products(b1, odd, s10);
    x = load4(x1);
    even = unsigned_even(x), odd = unsigned_odd(x);
    s01 = two_products(a0, even, s01);
    s11 = two_products(b0, even, s11);
    s01 = two_products(a1, odd, s01);
    s11 = two_products(b1, odd, s11);
#else
    for (int n = 0; n < 4; n++) {
      int32_t a = w[n], b = w[n + 4], p = x0[n], q = x1[n];
      s00 += a * p;
      s01 += a * q;
      s10 += b * p;
      s11 += b * q;
    }
#endif
  }
  sums[0] = s00, sums[1] = s01, sums[2] = s10, sums[3] = s11;
}

/* The values that one output pixel reads, in a row: a place in `in`, or copied to `column`. */
static const uint8_t *column_of(const nonn_conv *layer, const uint8_t *in, int x, int y,
                                uint8_t *column) {
  const int size = layer->kernel, channels = layer->in_channels, width = layer->in_width;
  const int left = x * layer->stride - layer->pad, top = y * layer->stride - layer->pad;
  if (size == 1 && layer->pad == 0 && channels % 4 == 0) return in + (top * width + left) * channels;
  const int before = left < 0 ? -left : 0;
  const int after = left + size > width ? left + size - width : 0;
  uint8_t *place = column;
  for (int row = top; row < top + size; row++) {
    if (row < 0 || row >= layer->in_height) {
      memset(place, layer->zero, (size_t)(size * channels));
      place += size * channels;
      continue;
    }
    const size_t inside = (size_t)((size - before - after) * channels);
    memset(place, layer->zero, (size_t)(before * channels));
    place += before * channels;
    memcpy(place, in + (row * width + left + before) * channels, inside);
    place += inside;
    memset(place, layer->zero, (size_t)(after * channels));
    place += after * channels;
  }
  return column;
}

void nonn_convolution(const nonn_conv *layer, const uint8_t *in, uint8_t *out, uint8_t *columns) {
  const uint32_t words = ((uint32_t)layer->kernel * layer->kernel * layer->in_channels + 3) / 4;
  const int pixels = layer->out_height * layer->out_width, channels = layer->out_channels;
  const int64_t offset = layer->offset;
  const unsigned shift = layer->shift;
  for (int pixel = 0; pixel < pixels; pixel += 2) {
    const int second = pixel + 1 < pixels ? pixel + 1 : pixel;
    const uint8_t *x0 = column_of(layer, in, pixel % layer->out_width, pixel / layer->out_width,
                                  columns);
    const uint8_t *x1 = column_of(layer, in, second % layer->out_width, second / layer->out_width,
                                  columns + 4 * words);
    uint8_t *y0 = out + pixel * channels, *y1 = out + second * channels;
    const int8_t *weights = layer->weights;
    const int32_t *sums = layer->sums, *multipliers = layer->multipliers;
    for (int channel = 0; channel < channels; channel += 2, weights += 8 * words) {
      const int last = channel + 1 < channels;
      int32_t s[4] = {sums[channel], sums[channel], sums[channel + last], sums[channel + last]};
      products(x0, x1, weights, words, s);
      y0[channel] = scaled(s[0], multipliers[channel], offset, shift);
      y1[channel] = scaled(s[1], multipliers[channel], offset, shift);
      if (last) {
        y0[channel + 1] = scaled(s[2], multipliers[channel + 1], offset, shift);
        y1[channel + 1] = scaled(s[3], multipliers[channel + 1], offset, shift);
      }
    }
  }
}

void nonn_depthwise(const nonn_conv *layer, const uint8_t *in, uint8_t *out) {
  const int size = layer->kernel, channels = layer->in_channels, width = layer->in_width;
  for (int y = 0; y < layer->out_height; y++)
    for (int x = 0; x < layer->out_width; x++) {
      const int left = x * layer->stride - layer->pad, top = y * layer->stride - layer->pad;
      for (int channel = 0; channel < channels; channel++) {
        const int8_t *weight = layer->weights + channel;
        int32_t sum = layer->sums[channel];
        for (int row = top; row < top + size; row++)
          for (int column = left; column < left + size; column++, weight += channels) {
            const int inside = row >= 0 && row < layer->in_height && column >= 0 && column < width;
            sum += *weight * (inside ? in[(row * width + column) * channels + channel] : layer->zero);
          }
        *out++ = scaled(sum, layer->multipliers[channel], layer->offset, layer->shift);
      }
    }
}

void nonn_normalisation(const nonn_norm *layer, const uint8_t *in, uint8_t *out) {
  const uint32_t channels = layer->channels, values = layer->pixels * channels;
  const unsigned shift = layer->shift;
  for (uint32_t channel = 0; channel < channels; channel++, in++, out++) {
    const int32_t factor = layer->factors[channel], sum = layer->sums[channel];
    for (uint32_t place = 0; place < values; place += channels)
      out[place] = cut(high_product(raised(in[place]), factor, sum) >> shift);
  }
}

void nonn_addition(const nonn_add *layer, const uint8_t *first, const uint8_t *second, uint8_t *out) {
  const int32_t a = layer->a, b = layer->b, offset = layer->offset;
  const unsigned shift = layer->shift;
  for (const uint8_t *end = first + layer->values; first != end;) {
    const int32_t sum = high_product(raised(*first++), a, offset);
    *out++ = cut(high_product(raised(*second++), b, sum) >> shift);
  }
}

void nonn_max_pool(const nonn_pool *layer, const uint8_t *in, uint8_t *out) {
  const int channels = layer->channels, width = layer->in_width, size = layer->kernel;
  for (int y = 0; y < layer->out_height; y++)
    for (int x = 0; x < layer->out_width; x++)
      for (int channel = 0; channel < channels; channel++) {
        const int left = x * layer->stride - layer->pad, top = y * layer->stride - layer->pad;
        uint8_t most = 0;
        for (int row = top < 0 ? 0 : top; row < top + size && row < layer->in_height; row++)
          for (int column = left < 0 ? 0 : left; column < left + size && column < width; column++) {
            const uint8_t value = in[(row * width + column) * channels + channel];
            if (value > most) most = value;
          }
        *out++ = most;
      }
}

void nonn_global_average(const nonn_pool *layer, const uint8_t *in, uint8_t *out) {
  const int pixels = layer->in_height * layer->in_width, channels = layer->channels;
  for (int channel = 0; channel < channels; channel++) {
    int32_t sum = layer->sum;
    for (int pixel = 0; pixel < pixels; pixel++) sum += in[pixel * channels + channel];
    /* The mean of few values is a large part of their sum: the multiplier counts in 1/256. */
    out[channel] = scaled(256 * sum, layer->multiplier, layer->offset, layer->shift);
  }
}
