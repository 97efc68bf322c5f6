/* Reads models that embc packed: `embc export MODEL --format packed` writes model.embc.
 *
 * A handle maps a file and has buffers of its own: one a thread. What is mapped is shared by all
 * handles of a file, and by all processes. After embc_open and embc_share nothing is allocated but
 * the text of an error.
 * Functions that return int return 0, or -1; embc_error says what went wrong in this thread.
 * The file must not change while it is open.
 *
 *   cc app.c -lembc_device -lm
 */
#ifndef EMBC_H
#define EMBC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct embc_reader embc_reader;

/* Opens a file; NULL where it cannot be opened, or is no good file. */
embc_reader *embc_open(const char *path);
/* Another handle on the same mapping, for another thread; the thread of `reader` asks for it. */
embc_reader *embc_share(const embc_reader *reader);
void embc_close(embc_reader *reader);
/* The last error of this thread, until its next one. */
const char *embc_error(void);

/* Inputs are the fields of the model, from 0: their number, the one called so (or -1), the number
 * of its ids, and the floats of its rows. */
size_t embc_inputs(const embc_reader *reader);
int64_t embc_input(const embc_reader *reader, const char *name);
uint32_t embc_vocab(const embc_reader *reader, size_t input);
size_t embc_width(const embc_reader *reader, size_t input);
/* Dense features, and logits, of an example. Of a file of embeddings alone there are none. */
size_t embc_dense(const embc_reader *reader);
size_t embc_outputs(const embc_reader *reader);

/* The id of a value of `length` bytes. One that training did not have has the unknown id; -1 where
 * there is none, or the file has no vocabulary. */
int64_t embc_id(const embc_reader *reader, size_t input, const char *value, size_t length);

/* The rows of n ids of an input, to out [n * embc_width]. */
int embc_rows(embc_reader *reader, size_t input, const uint32_t *ids, size_t n, float *out);

/* The logits of `batch` examples, to out [batch * embc_outputs].
 * ids[i] are the ids of input i of all examples, one after the other. offsets is NULL where every
 * example has one id of each input; else offsets[i] is NULL for such an input, and for others says
 * where each example's ids begin, and where the last one's end [batch + 1].
 * dense [batch * embc_dense] are the dense features as the data has them, NaN for none. */
int embc_score(embc_reader *reader, const uint32_t *const *ids, const uint32_t *const *offsets,
               const double *dense, size_t batch, float *out);

#ifdef __cplusplus
}
#endif
#endif
