/* crowd_dump DECK STEPS PREFIX [key=value ...]: runs a deck in one process and writes, as raw native binary,
 *   PREFIX.votes0, PREFIX.votes    uint8 [n_agents], at the start and after STEPS steps
 *   PREFIX.state0, PREFIX.state    float32 [n_agents][state_dim] (neural models)
 *   PREFIX.weights                 float32, W1 b1 W2 b2 Wv bv one after another (neural models)
 * for a reference in another language to start from and to compare with. */
#include "crowd.h"

#include <stdlib.h>
#include <string.h>

static bool write_file(const char *prefix, const char *suffix, const void *data, size_t bytes)
{
    char name[4096];
    int length = snprintf(name, sizeof name, "%s.%s", prefix, suffix);
    FILE *file = length > 0 && (size_t)length < sizeof name ? fopen(name, "wb") : NULL;
    if (file == NULL) {
        (void)fprintf(stderr, "cannot write %s.%s\n", prefix, suffix);
        return false;
    }
    bool written = fwrite(data, 1, bytes, file) == bytes;
    return fclose(file) == 0 && written;
}

static bool write_crowd(const crowd *c, const char *prefix, const char *votes_name, const char *state_name)
{
    size_t n = (size_t)c->spec.n_agents;
    size_t dim = (size_t)c->model->state_dim;
    uint8_t *votes = malloc(n);
    float *state = malloc((n * dim + 1) * sizeof(float));
    bool written = votes != NULL && state != NULL;
    if (written) {
        crowd_votes(c, votes);
        crowd_state(c, state);
        written = write_file(prefix, votes_name, votes, n) &&
                  (dim == 0 || write_file(prefix, state_name, state, n * dim * sizeof(float)));
    }
    free(votes);
    free(state);
    return written;
}

static char *read_deck(const char *name)
{
    char *text = calloc(1, QR_DECK_MAX_BYTES);
    FILE *file = fopen(name, "rb");
    size_t got = text != NULL && file != NULL ? fread(text, 1, QR_DECK_MAX_BYTES - 1, file) : 0;
    if (file != NULL) {
        (void)fclose(file);
    }
    if (got == 0) {
        (void)fprintf(stderr, "cannot read %s\n", name);
        free(text);
        return NULL;
    }
    return text;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        (void)fprintf(stderr, "usage: %s DECK STEPS PREFIX [key=value ...]\n", argv[0]);
        return 2;
    }
    char *text = read_deck(argv[1]);
    if (text == NULL) {
        return 2;
    }
    crowd_setup setup = {.deck_text = text, .overrides = (const char *const *)argv + 4, .n_overrides = argc - 4};
    crowd *c = NULL;
    bool done = crowd_open(&setup, &c) == QR_OK;
    if (!done) {
        (void)fprintf(stderr, "%s\n", qr_error_message());
    } else {
        size_t weights = (size_t)qr_model_weight_count(c->deck) * sizeof(float);
        done = (weights == 0 || write_file(argv[3], "weights", c->model->weights, weights)) &&
               write_crowd(c, argv[3], "votes0", "state0");
        crowd_step(c, strtoll(argv[2], NULL, 10));
        done = done && write_crowd(c, argv[3], "votes", "state");
    }
    crowd_free(c);
    free(text);
    return done ? 0 : 1;
}
