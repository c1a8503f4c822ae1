// SPDX-License-Identifier: Apache-2.0
//
// Mistakes in calls of negcos_evaluate: each spoils a good call, which must answer its status, name what is wrong, and
// leave every output as it was. A Call has evaluate() and untouched().
#ifndef NEGCOS_TESTS_ERRORS_HPP
#define NEGCOS_TESTS_ERRORS_HPP

#include <doctest/doctest.h>

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "negcos/negcos.hpp"

namespace errors {

inline negcos::Context serial_context() {
    negcos::ContextOptions options;
    options.threading = NEGCOS_THREADING_SERIAL;
    return negcos::Context(options);
}

// Outputs are filled with 7 before the call.
template <class... Arrays>
bool all_seven(const Arrays&... arrays) {
    const auto seven = [](const auto& array) {
        for (const auto x : array)
            if (x != 7) return false;
        return true;
    };
    return (seven(arrays) && ...);
}

// What the sentence must name.
struct Named : std::vector<std::string> {
    Named(const char* one) : std::vector<std::string>{one} {}
    Named(std::initializer_list<std::string> all) : std::vector<std::string>(all) {}
};

template <class Call>
struct Mistake {
    int32_t status;
    Named named;
    std::function<void(Call&)> spoil;
};

template <class Call>
void check(const std::vector<Mistake<Call>>& mistakes) {
    for (const Mistake<Call>& mistake : mistakes) {
        Call call;
        mistake.spoil(call);
        const int32_t status = call.evaluate();
        const std::string sentence = negcos_last_error();
        for (const std::string& named : mistake.named) {
            INFO(named << ": " << sentence);
            CHECK(status == mistake.status);
            CHECK(sentence.find(named) != std::string::npos);
            CHECK(call.untouched());
            CHECK(std::string(negcos_status_string(status)) != "unknown status");
        }
    }
}

}  // namespace errors

#endif
