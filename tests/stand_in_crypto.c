/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In place of libcrypto where there is none for the C library: the calls of the command, and a digest that is no
 * SHA-256.
 */
#include <openssl/evp.h>
#include <stdlib.h>

struct evp_md_ctx_st {
    unsigned char sum[32];
    size_t at;
};

EVP_MD_CTX* EVP_MD_CTX_new(void) {
    return calloc(1, sizeof(EVP_MD_CTX));
}
void EVP_MD_CTX_free(EVP_MD_CTX* state) {
    free(state);
}
const EVP_MD* EVP_sha256(void) {
    return NULL;
}
int EVP_DigestInit_ex(EVP_MD_CTX* state, const EVP_MD* type, ENGINE* engine) {
    return state && !type && !engine;
}
int EVP_DigestUpdate(EVP_MD_CTX* state, const void* data, size_t size) {
    for (size_t k = 0; k < size; ++k, ++state->at) {
        unsigned char* sum = &state->sum[state->at % sizeof state->sum];
        *sum = (unsigned char)(*sum * 31 + ((const unsigned char*)data)[k]);
    }
    return 1;
}
int EVP_DigestFinal_ex(EVP_MD_CTX* state, unsigned char* digest, unsigned int* size) {
    for (*size = 0; *size < sizeof state->sum; ++*size) {
        digest[*size] = state->sum[*size];
    }
    return 1;
}
