// SPDX-License-Identifier: Apache-2.0
//
// What the library leaves of a process that loads and calls it as a plug-in: floating-point control and signal handlers
// are as they were. It is loaded here, not linked; NEGCOS_LIBRARY names it.
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <signal.h>

#include <cfenv>
#include <string>
#include <vector>

#include "modes.hpp"
#include "negcos/negcos.h"

namespace {

// Of each signal: who handles it, with what flags, and what it blocks.
std::vector<std::string> handlers() {
    std::vector<std::string> all;
    for (int number = 1; number < NSIG; ++number) {
        struct sigaction action;
        if (sigaction(number, nullptr, &action) != 0) continue;
        std::string text = std::to_string(reinterpret_cast<uintptr_t>(action.sa_handler)) + " " +
                           std::to_string(action.sa_flags) + " ";
        for (int other = 1; other < NSIG; ++other) text += sigismember(&action.sa_mask, other) == 1 ? '1' : '0';
        all.push_back(text);
    }
    return all;
}

struct Library {
    void* handle = dlopen(NEGCOS_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    template <class Function>
    Function* find(const char* name) {
        return reinterpret_cast<Function*>(dlsym(handle, name));
    }
};

// One call of each engine on this context's threads.
void call(Library& library, negcos_context* context) {
    std::vector<float> queries(300 * 40), documents(300 * 40), gradient(300 * 40);
    for (size_t k = 0; k < queries.size(); ++k)
        queries[k] = static_cast<float>(k % 7) - 3, documents[k] = static_cast<float>(k % 11) - 5;
    for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_ALL}) {
        negcos_options options;
        negcos_batch batch;
        negcos_result result;
        library.find<decltype(negcos_options_init)>("negcos_options_init")(&options, sizeof options);
        library.find<decltype(negcos_batch_init)>("negcos_batch_init")(&batch, sizeof batch);
        library.find<decltype(negcos_result_init)>("negcos_result_init")(&result, sizeof result);
        options.sampling = sampling;
        batch.queries = {queries.data(), 300, 40, 40, NEGCOS_DTYPE_F32, 0};
        batch.documents = {documents.data(), 300, 40, 40, NEGCOS_DTYPE_F32, 0};
        result.grad_documents = {gradient.data(), 300, 40, 40, NEGCOS_DTYPE_F32, 0};
        REQUIRE(library.find<decltype(negcos_evaluate)>("negcos_evaluate")(context, &options, &batch, &result) ==
                NEGCOS_STATUS_OK);
        CHECK(result.loss > 0);
    }
}

TEST_SUITE("unit") {
    TEST_CASE("footprint: floating-point control and signal handlers are as before load and call") {
        const uint64_t control = modes::control();
        const std::vector<std::string> signals = handlers();
        Library library;
        REQUIRE_MESSAGE(library.handle != nullptr, dlerror());
        CHECK(modes::control() == control);
        CHECK(handlers() == signals);

        for (const int32_t threading : {NEGCOS_THREADING_DEFAULT, NEGCOS_THREADING_SERIAL}) {
            negcos_context_options options;
            library.find<decltype(negcos_context_options_init)>("negcos_context_options_init")(&options,
                                                                                               sizeof options);
            options.threading = threading;
            negcos_context* context = nullptr;
            REQUIRE(library.find<decltype(negcos_context_create)>("negcos_context_create")(&options, &context) ==
                    NEGCOS_STATUS_OK);
            for (const int rounding : {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
                std::fesetround(rounding);
                const modes::FlushToZero flush;
                const uint64_t set = modes::control();
                CHECK(set != control);
                call(library, context);
                CHECK(modes::control() == set);
            }
            std::fesetround(FE_TONEAREST);
            call(library, context);
            CHECK(modes::control() == control);
            library.find<decltype(negcos_context_destroy)>("negcos_context_destroy")(context);
        }
        CHECK(modes::control() == control);
        CHECK(handlers() == signals);
    }
}

}  // namespace
