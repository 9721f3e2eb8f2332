// The scalar mathematics that the kernels share, under the names of functional.py and optim.py.
// REAL is float or double; CLASSES is C. Formulas and derivations are in those two files.

typedef REAL real;

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

__host__ __device__ constexpr int ceil_div(int n, int by) { return (n + by - 1) / by; }
__host__ __device__ constexpr int round_up(int n, int to) { return ceil_div(n, to) * to; }

// What an update needs to know beside its batch; made on the host, in float64.
struct Step {
    real step_size;    // lr / (1 - beta1^t)
    real root;         // sqrt(1 - beta2^t)
    real keep;         // 1 - lr weight_decay, of AdamW
    real inverse_n;    // 1 / N, where the last batch of an epoch may be smaller
};

struct Optimizer {
    real beta1, beta2, one_minus_beta1, one_minus_beta2, eps;
    int renew;         // whether each update has a new optimizer, as the tutorial's does
};

// x of a pixel, as training.Normalization has it.
__device__ __forceinline__ real to_input(unsigned char pixel, real scale, real shift)
{
    return scale * real(pixel) + shift;
}

// nan is not below 0, and so stays.
__device__ __forceinline__ real relu_forward(real x) { return x < 0 ? real(0) : x; }

// From y = relu(x), which is above 0 exactly where x is.
__device__ __forceinline__ real relu_backward(real grad_output, real y)
{
    return y <= 0 ? real(0) : grad_output;
}

// cross_entropy_forward and _backward of one sample: turns its logits z into (p - q) / N, and
// returns -log p[label].
__device__ __forceinline__ real cross_entropy(real (&z)[CLASSES], int label, real inverse_n)
{
    real largest = z[0], sum = 0, at_label = 0;
#pragma unroll
    for (int c = 1; c < CLASSES; ++c)
        largest = z[c] > largest ? z[c] : largest;
#pragma unroll
    for (int c = 0; c < CLASSES; ++c) {
        z[c] -= largest;
        at_label = c == label ? z[c] : at_label;
        sum += exp(z[c]);
    }
#pragma unroll
    for (int c = 0; c < CLASSES; ++c)
        z[c] = (exp(z[c]) / sum - (c == label ? real(1) : real(0))) * inverse_n;
    return log(sum) - at_label;
}

// Adam.update, or AdamW's: a parameter's new value. m and v are what they were, and become new.
// Moments that have all but faded away are forgotten, as in Adam.forget_faded.
__device__ __forceinline__ real adam(real p, real g, real &m, real &v, const Optimizer &o,
                                     const Step &step)
{
    if (o.renew || fabs(m) < real(1e-30))
        m = 0;
    if (o.renew || v < real(1e-36))
        v = 0;
    m = o.beta1 * m + o.one_minus_beta1 * g;
    v = o.beta2 * v + o.one_minus_beta2 * g * g;
    return step.keep * p - step.step_size * (m / (sqrt(v) / step.root + o.eps));
}

// The sum of x over a warp's lanes, in every lane. The order is always the same.
__device__ __forceinline__ real warp_sum(real x)
{
#pragma unroll
    for (int lanes = WARP / 2; lanes; lanes /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, lanes);
    return x;
}
