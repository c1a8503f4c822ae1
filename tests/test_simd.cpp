// SPDX-License-Identifier: Apache-2.0
//
// Every operation of the lanes (simd_operations.inc) on every instruction set that this machine runs, against plain
// code, bit by bit: of special numbers each with each, random bits, and numbers whose sums and products round.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "half.hpp"
#include "harness.hpp"
#include "simd_table.hpp"

namespace {

using harness::Random;
using negcos::Working;
using simd::a_little_more;
using simd::Operands;

template <class T>
constexpr int kLanes = static_cast<int>(negcos::kVirtualLanes<T>);

template <class T>
using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
template <class T>
Bits<T> bits_of(T x) {
    Bits<T> bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
template <class T>
T of_bits(uint64_t bits) {
    const Bits<T> low = static_cast<Bits<T>>(bits);
    T x;
    std::memcpy(&x, &low, sizeof x);
    return x;
}

// What an operation promises of a NaN that it gives: its very bits, or that it is one.
enum Nan { kSameNan, kSomeNan };

template <class T>
bool same(T got, T expected, Nan nan) {
    if constexpr (std::is_floating_point_v<T>)
        if (nan == kSomeNan && std::isnan(got) && std::isnan(expected)) return true;
    return bits_of(got) == bits_of(expected);
}

// Counts what differs in the results of one operation, and tells the first of it.
class Comparison {
public:
    explicit Comparison(const std::string& name) : name_(name) {}
    ~Comparison() {
        INFO(name_ << ": " << first_.str());
        CHECK(differences_ == 0);
    }
    template <class T, class... From>
    void meet(T got, T expected, Nan nan, int lane, From... from) {
        if (same(got, expected, nan)) return;
        if (differences_++ > 0) return;
        first_ << "lane " << lane << ", from" << std::hex;
        ((first_ << " 0x" << bits_of(from)), ...);
        first_ << ": 0x" << bits_of(got) << " and not 0x" << bits_of(expected);
    }

private:
    std::string name_;
    std::ostringstream first_;
    int64_t differences_ = 0;
};

// ---- Plain code -----------------------------------------------------------------------------------------------------

// 2^n from t = n + 1.5 * 2^mantissa; of any other t, its bits shifted into the exponent's place.
template <class T>
T power_of_two(T t) {
    constexpr int kMantissa = std::numeric_limits<T>::digits - 1, kBias = std::numeric_limits<T>::max_exponent - 1;
    const T n = t - std::ldexp(T(1.5), kMantissa);
    if (n > -kBias && n <= kBias) return std::ldexp(T(1), static_cast<int>(n));
    return of_bits<T>((uint64_t{bits_of(t)} << kMantissa) + bits_of(T(1)));
}

constexpr auto plus = [](auto a, auto b) { return a + b; };
constexpr auto larger = [](auto a, auto b) { return a < b ? b : a; };
// 16 -> 8 -> 4 -> 2 -> 1, lane l with lane l + half.
template <class T, class Join>
T tree(const T* x, const Join& join) {
    T lanes[kLanes<T>];
    std::copy(x, x + kLanes<T>, lanes);
    for (int half = kLanes<T> / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) lanes[l] = join(lanes[l], lanes[l + half]);
    return lanes[0];
}

template <class E>
E widen(E x) {
    return x;
}
float widen(negcos::F16 x) {
    half::F16 value;
    value.bits = x.bits;
    return static_cast<float>(value);
}
float widen(negcos::BF16 x) {
    half::BF16 value;
    value.bits = x.bits;
    return static_cast<float>(value);
}
// In one rounding; every NaN is one.
template <class E>
E narrow(double x) {
    if constexpr (std::is_same_v<E, negcos::F16>)
        return {half::F16(x).bits};
    else if constexpr (std::is_same_v<E, negcos::BF16>)
        return {half::BF16(x).bits};
    else
        return std::isnan(x) ? std::numeric_limits<E>::quiet_NaN() : static_cast<E>(x);
}

// ---- Numbers --------------------------------------------------------------------------------------------------------

template <class T>
std::vector<T> special_numbers() {
    using Limits = std::numeric_limits<T>;
    constexpr int kMantissa = Limits::digits - 1;
    const uint64_t infinity = bits_of(Limits::infinity()), quiet = uint64_t{1} << (kMantissa - 1);
    std::vector<T> numbers;
    for (const T x : {T(0),
                      Limits::denorm_min(),
                      std::nextafter(Limits::min(), T(0)),
                      Limits::min(),
                      std::nextafter(Limits::min(), T(1)),
                      Limits::epsilon(),
                      T(1) / 3,
                      std::nextafter(T(1), T(0)),
                      T(1),
                      std::nextafter(T(1), T(2)),
                      T(2),
                      T(1e10),
                      std::ldexp(T(1.5), kMantissa),
                      Limits::max() / 2,
                      Limits::max(),
                      Limits::infinity(),
                      of_bits<T>(infinity | quiet),
                      of_bits<T>(infinity | quiet | 5),
                      of_bits<T>(infinity | 1),
                      of_bits<T>(2 * quiet - 1 + infinity)}) {
        numbers.push_back(x);
        numbers.push_back(of_bits<T>(bits_of(x) ^ (infinity + 2 * quiet)));  // -x
    }
    return numbers;
}

template <class T>
struct Numbers {
    std::vector<T> x[4];

    Numbers() {
        Random random(7);
        const std::vector<T> special = special_numbers<T>();
        const auto any_special = [&] {
            return special[static_cast<size_t>(random.below(static_cast<int64_t>(special.size())))];
        };
        // moderate: sums of several round
        const auto moderate = [&] {
            return static_cast<T>(std::ldexp(random.uniform() - 0.5, static_cast<int>(random.below(20))));
        };
        // three of them each with each, of four each with any
        uint64_t number = 0;
        for (const T a : special)
            for (const T b : special)
                for (const T c : special)
                    if (number++ % harness::test_step() == 0) add(a, b, c, any_special());
        for (int k = 0; k < 16384; ++k)
            add(of_bits<T>(random.next()), of_bits<T>(random.next()), of_bits<T>(random.next()),
                of_bits<T>(random.next()));
        for (int k = 0; k < 16384; ++k) add(moderate(), moderate(), moderate(), moderate());
        const auto mixed = [&] { return random.below(32) == 0 ? any_special() : moderate(); };
        for (int k = 0; k < 16384; ++k) add(mixed(), mixed(), mixed(), mixed());
        constexpr int kBias = std::numeric_limits<T>::max_exponent - 1;
        for (int n = 1 - kBias; n <= kBias; ++n)
            add(std::ldexp(T(1.5), std::numeric_limits<T>::digits - 1) + static_cast<T>(n), moderate(), moderate(),
                moderate());
        while (x[0].size() % static_cast<size_t>(kLanes<T>) != 0) add(T(0), T(0), T(0), T(0));
    }
    void add(T a, T b, T c, T d) {
        x[0].push_back(a);
        x[1].push_back(b);
        x[2].push_back(c);
        x[3].push_back(d);
    }
};

// Every number of a 16-bit type; of others, those of operations.
template <class E>
std::vector<E> loaded() {
    if constexpr (sizeof(E) == 2) {
        std::vector<E> all;
        for (uint32_t bits = 0; bits < 0x10000; ++bits) all.push_back({static_cast<uint16_t>(bits)});
        return all;
    } else {
        return Numbers<E>().x[0];
    }
}
// The same, and of a 16-bit type the ties between each two neighbours, and what is just above and below all of these.
template <class E>
std::vector<Working<E>> stored() {
    std::vector<Working<E>> all = Numbers<Working<E>>().x[0];
    if constexpr (sizeof(E) == 2) {
        const float infinity = std::numeric_limits<float>::infinity();
        for (uint64_t bits = 0; bits < 0x8000; bits += harness::test_step()) {
            const float low = widen(E{static_cast<uint16_t>(bits)}), high = widen(E{static_cast<uint16_t>(bits + 1)});
            if (!(low < infinity)) continue;
            // after the largest number as if exponents went on
            const float below = bits == 0 ? 0 : widen(E{static_cast<uint16_t>(bits - 1)});
            const float tie = high < infinity ? low + (high - low) / 2 : low + (low - below) / 2;
            for (const float x : {low, tie})
                for (const float y : {std::nextafter(x, -infinity), x, std::nextafter(x, infinity)}) {
                    all.push_back(y);
                    all.push_back(-y);
                }
        }
    }
    while (all.size() % static_cast<size_t>(kLanes<Working<E>>) != 0) all.push_back(0);
    return all;
}

// ---- Comparisons ----------------------------------------------------------------------------------------------------

template <class T, class Plain>
void check_operation(const std::string& name, Nan nan, void (*operation)(const Operands<T>&, T*) noexcept,
                     const Plain& plain, const Numbers<T>& numbers) {
    Comparison comparison(name);
    for (size_t k = 0; k < numbers.x[0].size(); k += static_cast<size_t>(kLanes<T>)) {
        const Operands<T> x = {&numbers.x[0][k], &numbers.x[1][k], &numbers.x[2][k], &numbers.x[3][k]};
        T got[kLanes<T>] = {}, expected[kLanes<T>] = {};
        operation(x, got);
        plain(x, expected);
        for (int l = 0; l < kLanes<T>; ++l)
            comparison.meet(got[l], expected[l], nan, l, x[0][l], x[1][l], x[2][l], x[3][l]);
    }
}

template <class T>
void check_lanes(const std::string& isa, const simd::LaneOperations<T>& operations) {
    static const Numbers<T> numbers;
#define EACH(name, nan, lanes, plain)                                                        \
    check_operation<T>(                                                                      \
        isa + ": " #name, nan, operations.name,                                              \
        [](const Operands<T>& x, T* out) {                                                   \
            [[maybe_unused]] const T first = x[0][0];                                        \
            for (int l = 0; l < kLanes<T>; ++l) {                                            \
                [[maybe_unused]] const T a = x[0][l], b = x[1][l], c = x[2][l], d = x[3][l]; \
                out[l] = plain;                                                              \
            }                                                                                \
        },                                                                                   \
        numbers);
#define FOLD(name, nan, lanes, plain)                 \
    check_operation<T>(                               \
        isa + ": " #name, nan, operations.name,       \
        [](const Operands<T>& x, T* out) {            \
            [[maybe_unused]] const T* const a = x[0]; \
            plain;                                    \
        },                                            \
        numbers);
#include "simd_operations.inc"
#undef EACH
#undef FOLD
}

// A page between two that fault.
class Page {
public:
    Page() : size_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
        pages_ = static_cast<unsigned char*>(mmap(nullptr, 3 * size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        REQUIRE(static_cast<void*>(pages_) != MAP_FAILED);
        REQUIRE(mprotect(pages_ + size_, size_, PROT_READ | PROT_WRITE) == 0);
    }
    ~Page() { munmap(pages_, 3 * size_); }
    Page(const Page&) = delete;
    Page& operator=(const Page&) = delete;

    template <class E>
    E* end() const {
        return reinterpret_cast<E*>(pages_ + 2 * size_);
    }

private:
    size_t size_;
    unsigned char* pages_ = nullptr;
};

// Groups of lanes in turn, all of each; and of some all counts n, with no element or one between the last and the page
// that faults. (Emulators read the whole of what AVX2 masks: there as many more as are lanes.)
template <class T, class Group>
void each_group(size_t size, const Group& group) {
    const int behind = std::getenv("NEGCOS_EMULATOR") ? kLanes<T> : 0;
    for (size_t k = 0; k < size; k += static_cast<size_t>(kLanes<T>)) {
        const int turn = static_cast<int>(k) / kLanes<T>;
        group(k, kLanes<T>, behind);
        if (turn % 8 == 0) group(k, turn / 8 % (kLanes<T> + 1), behind + turn / 8 % 2);
    }
}

template <class E, class Plain>
void check_load(const std::string& name, void (*operation)(const E*, int, Working<E>*) noexcept, bool (*when)(int n),
                const Plain& plain, const std::vector<E>& numbers, const Page& page) {
    using T = Working<E>;
    Comparison comparison(name);
    each_group<T>(numbers.size(), [&](size_t k, int n, int behind) {
        if (!when(n)) return;
        E* x = page.end<E>() - n - behind;
        std::memset(static_cast<void*>(x), 0xFF, sizeof(E) * static_cast<size_t>(n + behind));
        std::copy(&numbers[k], &numbers[k] + n, x);
        T got[kLanes<T>];
        operation(x, n, got);
        for (int l = 0; l < kLanes<T>; ++l)
            comparison.meet(got[l], plain(x, l, n), sizeof(E) == 2 ? kSomeNan : kSameNan, l, l < n ? x[l] : E{});
    });
}

template <class E, class Plain>
void check_store(const std::string& name, void (*operation)(const Working<E>*, int, E*) noexcept, bool (*when)(int n),
                 const Plain& plain, const std::vector<Working<E>>& numbers, const Page& page) {
    using T = Working<E>;
    E untouched;
    std::memset(static_cast<void*>(&untouched), 0xA5, sizeof untouched);
    Comparison comparison(name);
    each_group<T>(numbers.size(), [&](size_t k, int n, int behind) {
        if (!when(n)) return;
        constexpr int kAhead = kLanes<T>;
        E* x = page.end<E>() - n - behind;
        std::fill(x - kAhead, x + n + behind, untouched);
        const T* from = &numbers[k];
        operation(from, n, x);
        for (int l = -kAhead; l < n + behind; ++l) {
            const bool inside = l >= 0 && l < n;
            comparison.meet(x[l], inside ? plain(from, l) : untouched, kSameNan, l, inside ? from[l] : T(0));
        }
    });
}

template <class E>
void check_memory(const std::string& isa, const simd::MemoryOperations<E>& operations) {
    using T = Working<E>;
    static const std::vector<E> to_load = loaded<E>();
    static const std::vector<T> to_store = stored<E>();
    const Page page;
#define LOAD(name, when, lanes, plain)                                                  \
    check_load<E>(                                                                      \
        isa + ": " #name, operations.name, []([[maybe_unused]] int n) { return when; }, \
        [](const E* x, int l, [[maybe_unused]] int n) -> T { return plain; }, to_load, page);
#define STORE(name, when, lanes, plain)                                                 \
    check_store<E>(                                                                     \
        isa + ": " #name, operations.name, []([[maybe_unused]] int n) { return when; }, \
        [](const T* from, int l) -> E { return plain; }, to_store, page);
#include "simd_operations.inc"
#undef LOAD
#undef STORE
}

void check_words(const std::string& isa, const simd::WordOperations& operations) {
    std::vector<uint64_t> x, y;
    Random random(3);
    for (const uint64_t a :
         {uint64_t{0}, uint64_t{1}, uint64_t{0xFFFFFFFF}, uint64_t{1} << 32, uint64_t{1} << 63, ~uint64_t{0}})
        for (const uint64_t b :
             {uint64_t{0}, uint64_t{1}, uint64_t{0xFFFFFFFF}, uint64_t{1} << 32, uint64_t{1} << 63, ~uint64_t{0}}) {
            x.push_back(a);
            y.push_back(b);
        }
    while (x.size() < 8192) {
        x.push_back(random.next());
        y.push_back(random.next());
    }
    const auto check = [&](const std::string& name, const auto& operation, const auto& plain) {
        Comparison comparison(name);
        uint64_t got[8];
        REQUIRE((operations.width > 0 && operations.width <= 8));
        const size_t width = static_cast<size_t>(operations.width);
        for (size_t k = 0; k + width <= x.size(); k += width) {
            operation(&x[k], &y[k], got);
            for (size_t l = 0; l < width; ++l)
                comparison.meet(got[l], plain(x[k + l], y[k + l]), kSameNan, static_cast<int>(l), x[k + l], y[k + l]);
        }
    };
#define WORDS(name, lanes, plain) \
    check(isa + ": " #name, operations.name, [](uint64_t a, [[maybe_unused]] uint64_t b) -> uint64_t { return plain; });
#include "simd_operations.inc"
#undef WORDS
}

// The operations of each instruction set that this machine runs.
template <class Check>
void each_isa(const char* test, const Check& check) {
    const std::vector<std::string> names = harness::isas(test);
    CHECK(!names.empty());
    for (const std::string& isa : names) check(isa, simd::operations_of(isa));
}

TEST_SUITE("unit") {
    TEST_CASE("simd: lanes of f32") {
        each_isa("simd: lanes of f32",
                 [](const auto& isa, const auto& operations) { check_lanes(isa, operations.f32); });
    }
    TEST_CASE("simd: lanes of f64") {
        each_isa("simd: lanes of f64",
                 [](const auto& isa, const auto& operations) { check_lanes(isa, operations.f64); });
    }
    TEST_CASE("simd: f32 in memory") {
        each_isa("simd: f32 in memory",
                 [](const auto& isa, const auto& operations) { check_memory(isa, operations.memory_f32); });
    }
    TEST_CASE("simd: f64 in memory") {
        each_isa("simd: f64 in memory",
                 [](const auto& isa, const auto& operations) { check_memory(isa, operations.memory_f64); });
    }
    TEST_CASE("simd: f16 in memory") {
        each_isa("simd: f16 in memory",
                 [](const auto& isa, const auto& operations) { check_memory(isa, operations.memory_f16); });
    }
    TEST_CASE("simd: bf16 in memory") {
        each_isa("simd: bf16 in memory",
                 [](const auto& isa, const auto& operations) { check_memory(isa, operations.memory_bf16); });
    }
    TEST_CASE("simd: words") {
        each_isa("simd: words", [](const auto& isa, const auto& operations) { check_words(isa, operations.words); });
    }
}

}  // namespace
