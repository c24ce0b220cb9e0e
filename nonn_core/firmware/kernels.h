/* Kernels of int8 networks, in C99.  Maps are uint8, height x width x channels, channels innermost.
 *
 * No heap, no floating point, no library beside string.h.  On cores with the DSP extension
 * (__ARM_FEATURE_DSP: Cortex-M4, M7, M33) the same functions use dual multiply-accumulate; their
 * results are the same to the last bit.
 *
 * A value is rounded once, half up, from a product of 64 bits; the sums before are exact.
 */
#ifndef NONN_KERNELS_H
#define NONN_KERNELS_H

#include <stdint.h>

/* Convolution, fully connected layer (1x1 on a map of 1x1), or depthwise convolution.
 *
 * A sum s of output channel c becomes ((multipliers[c] * s + offset) >> 32) >> shift, cut to 0..255.
 * `sums` are the biases less the input's zero point times the weights' sum.
 * Weights of a convolution lie in pairs of output channels: four of the one, four of the other, with
 * zeros up to a multiple of four; those of a depthwise one by tap, then channel.
 */
typedef struct {
  uint16_t in_height, in_width, in_channels, out_height, out_width, out_channels;
  uint8_t kernel, stride, pad, zero, shift;
  int64_t offset;
  const int8_t *weights;
  const int32_t *sums;
  const int32_t *multipliers;
} nonn_conv;

/* Sum of two maps: first * a + second * b + offset; the offset counts in 2**-shift, a and b in
 * 2**-(shift + 9). */
typedef struct {
  uint32_t values;
  uint8_t shift;
  int32_t a, b, offset;
} nonn_add;

/* Each channel by itself: value * factors[c] + sums[c], in the units of nonn_add. */
typedef struct {
  uint32_t pixels, channels;
  uint8_t shift;
  const int32_t *factors, *sums;
} nonn_norm;

/* Window of a pool; of the global average the scale of a sum, as in nonn_conv. */
typedef struct {
  uint16_t in_height, in_width, channels, out_height, out_width;
  uint8_t kernel, stride, pad, shift;
  int32_t sum, multiplier;
  int64_t offset;
} nonn_pool;

/* Values of an image in their places: table[channel][pixel]. */
void nonn_image(uint8_t *image, uint32_t pixels, uint32_t channels, const uint8_t *table);
/* `columns`: 2 * kernel * kernel * in_channels bytes, each rounded up to a multiple of four. */
void nonn_convolution(const nonn_conv *layer, const uint8_t *in, uint8_t *out, uint8_t *columns);
void nonn_depthwise(const nonn_conv *layer, const uint8_t *in, uint8_t *out);
/* May work in place. */
void nonn_normalisation(const nonn_norm *layer, const uint8_t *in, uint8_t *out);
/* May work in place on either. */
void nonn_addition(const nonn_add *layer, const uint8_t *first, const uint8_t *second, uint8_t *out);
void nonn_max_pool(const nonn_pool *layer, const uint8_t *in, uint8_t *out);
void nonn_global_average(const nonn_pool *layer, const uint8_t *in, uint8_t *out);

#endif
