#include "chain.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void chain_copying(chain *c, int n, double activation, double quality0, double quality1)
{
    memset(c, 0, sizeof *c);
    c->n = n;
    for (int i = 0; i <= n; i++) {
        double stay = quality0 * (i - 1);
        double other = quality1 * (n - i);
        c->leave[i] = i > 0 ? activation * other / (stay + other) : 0.0;
        double to0 = quality0 * i;
        double to1 = quality1 * (n - i - 1);
        c->join[i] = i < n ? activation * to0 / (to0 + to1) : 0.0;
    }
}

/* Distribution of the number of successes among n, as out[0 .. n]. */
static void binomial(int n, double p, double *out)
{
    memset(out, 0, ((size_t)n + 1) * sizeof *out);
    out[0] = 1.0;
    for (int trial = 0; trial < n; trial++) {
        for (int j = trial + 1; j > 0; j--) {
            out[j] = out[j] * (1.0 - p) + out[j - 1] * p;
        }
        out[0] *= 1.0 - p;
    }
}

/* Gaussian elimination with two right-hand sides; rows of `width` = m + 2. The matrix I - Q of an absorbing chain is
 * diagonally dominant, so no pivoting is needed. */
static void eliminate(double *a, int m)
{
    int width = m + 2;
    for (int col = 0; col < m; col++) {
        const double *pivot = a + (size_t)col * (size_t)width;
        for (int row = 0; row < m; row++) {
            double *target = a + (size_t)row * (size_t)width;
            double factor = row != col ? target[col] / pivot[col] : 0.0;
            for (int k = col; factor != 0.0 && k < width; k++) {
                target[k] -= factor * pivot[k];
            }
        }
    }
}

void chain_solve(chain *c)
{
    int n = c->n;
    int m = n - 1; /* states 1 .. n - 1 */
    int width = m + 2;
    double *a = calloc((size_t)m * (size_t)width, sizeof *a);
    if (a == NULL) {
        abort();
    }
    for (int i = 1; i < n; i++) {
        double kept[CHAIN_MAX + 1];
        double joined[CHAIN_MAX + 1];
        double *row = a + (size_t)(i - 1) * (size_t)width;
        binomial(i, 1.0 - c->leave[i], kept);
        binomial(n - i, c->join[i], joined);
        row[i - 1] = 1.0;
        row[m + 1] = 1.0;
        for (int k = 0; k <= i; k++) {
            for (int j = 0; j <= n - i; j++) {
                double p = kept[k] * joined[j];
                if (k + j == n) {
                    row[m] += p;
                } else if (k + j > 0) {
                    row[k + j - 1] -= p;
                }
            }
        }
    }
    eliminate(a, m);
    c->win[n] = 1.0;
    for (int i = 1; i < n; i++) {
        const double *row = a + (size_t)(i - 1) * (size_t)width;
        c->win[i] = row[m] / row[i - 1];
        c->steps[i] = row[m + 1] / row[i - 1];
    }
    free(a);
}
