/* The row of a value, and the score of an example that has the first id of every input:
 *   cc -I crates/embc-device/include crates/embc-device/examples/rows.c -L target/release \
 *      -lembc_device -o rows && LD_LIBRARY_PATH=target/release ./rows model.embc user 42 */
#include "embc.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(const char *what) {
    fprintf(stderr, "%s: %s\n", what, embc_error());
    return 2;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: %s MODEL.embc INPUT VALUE\n", argv[0]);
        return 2;
    }
    embc_reader *model = embc_open(argv[1]);
    if (!model) return failed("open");
    int64_t input = embc_input(model, argv[2]);
    if (input < 0) {
        fprintf(stderr, "the model has no input %s\n", argv[2]);
        return 2;
    }
    int64_t id = embc_id(model, input, argv[3], strlen(argv[3]));
    if (id < 0) {
        fprintf(stderr, "the model does not know %s\n", argv[3]);
        return 2;
    }
    uint32_t one = (uint32_t)id;
    size_t width = embc_width(model, input);
    float *row = malloc(width * sizeof *row);
    if (embc_rows(model, input, &one, 1, row)) return failed("rows");
    printf("%lld", (long long)id);
    for (size_t i = 0; i < width; i++) printf(" %.9g", row[i]);
    printf("\n");

    size_t inputs = embc_inputs(model), outputs = embc_outputs(model);
    if (outputs) {
        uint32_t first = 0;
        const uint32_t **ids = malloc(inputs * sizeof *ids);
        for (size_t i = 0; i < inputs; i++) ids[i] = &first;
        double *dense = calloc(embc_dense(model) + 1, sizeof *dense);
        float *logits = malloc(outputs * sizeof *logits);
        if (embc_score(model, ids, NULL, dense, 1, logits)) return failed("score");
        for (size_t i = 0; i < outputs; i++) printf("%.9g\n", logits[i]);
        free(ids), free(dense), free(logits);
    }
    free(row);
    embc_close(model);
    return 0;
}
