// SPDX-License-Identifier: Apache-2.0
#include "frequency.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <new>
#include <string>

#include "kernels.hpp"
#include "replace_file.hpp"
#include "status.hpp"
#include "validate.hpp"

namespace negcos {
namespace {

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;  // 2^64 over the golden ratio, the increment of SplitMix64
constexpr uint64_t kMost = uint64_t{1} << 53;      // steps and counts are exact as doubles

// The output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a bijection of 64 bits.
constexpr uint64_t mix(uint64_t x) noexcept {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

bool streaming(const negcos_frequency_options& options) noexcept {
    return options.method == NEGCOS_FREQUENCY_STREAMING;
}

uint64_t table_words(const negcos_frequency_options& options) noexcept {
    return static_cast<uint64_t>(options.hashes) * static_cast<uint64_t>(options.buckets) *
           (streaming(options) ? 2 : 1);
}

int32_t check_ids(const int64_t* ids, int64_t count) noexcept {
    if (count < 0 || count > std::numeric_limits<ptrdiff_t>::max() / static_cast<ptrdiff_t>(sizeof *ids))
        return fail(NEGCOS_STATUS_SHAPE, "count is %lld, expected 0 or more, and no more than fit into memory",
                    static_cast<long long>(count));
    if (!ids && count > 0)
        return fail(NEGCOS_STATUS_NULL_ARGUMENT, "ids is NULL, expected %lld", static_cast<long long>(count));
    return check_aligned("ids", ids, sizeof *ids);
}

// The file: little-endian words of 64 bits, a header, the table, and a checksum of all words before it.
constexpr uint64_t kMagic = 0x5146534F4347454Eu;  // "NEGCOSFQ"
constexpr uint64_t kVersion = 1;
constexpr uint64_t kHeader = 8;

uint64_t file_words(const negcos_frequency_options& options) noexcept {
    return kHeader + table_words(options) + 1;
}

// A bijection of each word: no change of a single one goes unseen.
uint64_t checksum(uint64_t sum, const uint64_t* words, uint64_t count) noexcept {
    for (uint64_t k = 0; k < count; ++k) sum = mix(sum ^ words[k]);
    return sum;
}

int32_t fail_errno(const char* path) noexcept {
    // no number: what was read of the file is all there was
    return fail(NEGCOS_STATUS_IO, "%.300s: %s", path, errno ? std::strerror(errno) : "it ended while it was read");
}

class File : public Descriptor {
public:
    using Descriptor::Descriptor;

    bool write_words(const uint64_t* words, uint64_t count) noexcept {
        for (uint64_t done = 0; done < count; done += kChunk) {
            const size_t size = 8 * std::min(count - done, kChunk);
            for (size_t b = 0; b < size; ++b)
                bytes_[b] = static_cast<unsigned char>(words[done + b / 8] >> (8 * (b % 8)));
            if (!write_all(get(), bytes_, size)) return false;
        }
        return true;
    }

    // errno is 0 when the file ends too early.
    bool read_words(uint64_t* words, uint64_t count) noexcept {
        for (uint64_t done = 0; done < count; done += kChunk) {
            const size_t size = 8 * std::min(count - done, kChunk);
            for (size_t at = 0; at < size;) {
                errno = 0;
                const ssize_t got = read(get(), bytes_ + at, size - at);
                if (got > 0)
                    at += static_cast<size_t>(got);
                else if (errno != EINTR)
                    return false;
            }
            std::fill_n(words + done, size / 8, 0);
            for (size_t b = 0; b < size; ++b) words[done + b / 8] |= uint64_t{bytes_[b]} << (8 * (b % 8));
        }
        return true;
    }

private:
    static constexpr uint64_t kChunk = 2048;
    unsigned char bytes_[8 * kChunk];
};

}  // namespace

negcos_frequency_options default_frequency_options() noexcept {
    negcos_frequency_options options{};
    options.hashes = 4;
    options.buckets = int64_t{1} << 20;
    options.learning_rate = 0.01;
    return options;
}

int32_t validate_frequency(const negcos_frequency_options& o) noexcept {
    if (o.method < NEGCOS_FREQUENCY_STREAMING || o.method > NEGCOS_FREQUENCY_COUNT_MIN)
        return fail(NEGCOS_STATUS_VALUE, "options.method is %d, expected 0 to %d", o.method,
                    NEGCOS_FREQUENCY_COUNT_MIN);
    if (o.reserved != 0) return fail(NEGCOS_STATUS_VALUE, "options.reserved is %d, expected 0", o.reserved);
    if (o.hashes < 1 || o.hashes > 64)
        return fail(NEGCOS_STATUS_VALUE, "options.hashes is %d, expected 1 to 64", o.hashes);
    if (o.buckets < 1 || o.buckets > int64_t{1} << 32)
        return fail(NEGCOS_STATUS_VALUE, "options.buckets is %lld, expected 1 to 2^32",
                    static_cast<long long>(o.buckets));
    if (!(o.learning_rate > 0 && o.learning_rate <= 1))
        return fail(NEGCOS_STATUS_VALUE, "options.learning_rate is %g, expected more than 0, at most 1",
                    o.learning_rate);
    if (!(o.initial_gap == 0 || (o.initial_gap >= 1 && o.initial_gap <= static_cast<double>(kMost))))
        return fail(NEGCOS_STATUS_VALUE, "options.initial_gap is %g, expected 0 (the first gap), or 1 to 2^53",
                    o.initial_gap);
    if (!streaming(o)) {
        const negcos_frequency_options normal = default_frequency_options();
        if (o.learning_rate != normal.learning_rate)
            return fail(NEGCOS_STATUS_UNSUPPORTED,
                        "options.learning_rate is %g, and options.method COUNT_MIN has none: leave it at %g",
                        o.learning_rate, normal.learning_rate);
        if (o.initial_gap != normal.initial_gap)
            return fail(NEGCOS_STATUS_UNSUPPORTED,
                        "options.initial_gap is %g, and options.method COUNT_MIN has none: leave it at 0",
                        o.initial_gap);
    }
    return NEGCOS_STATUS_OK;
}

Frequency::Frequency(const Kernels& kernels, const negcos_frequency_options& options)
    : kernels_(kernels), options_(options), table_(table_words(options)) {
    for (uint64_t h = 1; h <= static_cast<uint64_t>(options.hashes); ++h)
        keys_.push_back(mix(options.seed + h * kGolden));
}

uint64_t Frequency::bucket(size_t hash, int64_t id) const noexcept {
    const uint64_t buckets = static_cast<uint64_t>(options_.buckets);
    return hash * buckets + mix(static_cast<uint64_t>(id) ^ keys_[hash]) % buckets;
}

int32_t Frequency::update(const int64_t* ids, int64_t count) noexcept {
    if (const int32_t status = check_ids(ids, count)) return status;
    const uint64_t more = streaming(options_) ? 1 : static_cast<uint64_t>(count);
    if (more > kMost - total_)
        return fail(NEGCOS_STATUS_VALUE, "the estimator has counted %llu %s and can count 2^53 at most, not %llu more",
                    static_cast<unsigned long long>(total_), streaming(options_) ? "steps" : "ids",
                    static_cast<unsigned long long>(more));
    total_ += more;
    for (int64_t k = 0; k < count; ++k)
        for (size_t h = 0; h < keys_.size(); ++h) {
            const uint64_t at = bucket(h, ids[k]);
            if (streaming(options_))
                sight(table_[2 * at], table_[2 * at + 1]);
            else
                ++table_[at];
        }
    return NEGCOS_STATUS_OK;
}

void Frequency::sight(uint64_t& last, uint64_t& average) const noexcept {
    // Once a step, however often the batch has the id or others of its bucket: so the order of a batch plays no part.
    if (last == total_) return;
    const double gap = static_cast<double>(total_ - last);
    double mean = last != 0 ? std::bit_cast<double>(average) : options_.initial_gap;
    mean = mean != 0 ? std::max(1.0, mean + options_.learning_rate * (gap - mean)) : gap;
    last = total_;
    average = std::bit_cast<uint64_t>(mean);
}

// 1 / p - 1, in [0, 2^53].
double Frequency::odds_against(int64_t id) const noexcept {
    if (streaming(options_)) {
        const double unseen = options_.initial_gap != 0 ? options_.initial_gap : static_cast<double>(total_ + 1);
        double largest = 1;
        for (size_t h = 0; h < keys_.size(); ++h) {
            const uint64_t at = 2 * bucket(h, id);
            largest = std::max(largest, table_[at] != 0 ? std::bit_cast<double>(table_[at + 1]) : unseen);
        }
        return largest - 1;
    }
    uint64_t least = kMost;
    for (size_t h = 0; h < keys_.size(); ++h) least = std::min(least, table_[bucket(h, id)]);
    return least != 0 ? static_cast<double>(total_ - least) / static_cast<double>(least) : static_cast<double>(total_);
}

int32_t Frequency::log_probability(const int64_t* ids, int64_t count, double* log_probability) const noexcept {
    if (const int32_t status = check_ids(ids, count)) return status;
    if (count == 0) return NEGCOS_STATUS_OK;
    if (!log_probability)
        return fail(NEGCOS_STATUS_NULL_ARGUMENT, "log_probability is NULL, expected room for %lld",
                    static_cast<long long>(count));
    if (const int32_t status = check_aligned("log_probability", log_probability, sizeof *log_probability))
        return status;
    const uintptr_t from = reinterpret_cast<uintptr_t>(ids), to = reinterpret_cast<uintptr_t>(log_probability);
    if ((from > to ? from - to : to - from) < 8 * static_cast<uint64_t>(count))
        return fail(NEGCOS_STATUS_OVERLAP, "log_probability overlaps ids");

    constexpr int64_t kTogether = 64;
    double ones[kTogether], odds[kTogether];
    std::fill_n(ones, kTogether, 1.0);
    for (int64_t begin = 0; begin < count; begin += kTogether) {
        const int64_t n = std::min(count - begin, kTogether);
        double* const result = log_probability + begin;
        for (int64_t k = 0; k < n; ++k) odds[k] = odds_against(ids[begin + k]);
        kernels_.log_of_sum(ones, odds, result, n);
        for (int64_t k = 0; k < n; ++k) result[k] = 0 - result[k];
    }
    return NEGCOS_STATUS_OK;
}

int32_t Frequency::save(const char* path) const {
    const uint64_t header[kHeader] = {
        kMagic,
        kVersion | static_cast<uint64_t>(options_.method) << 32,
        static_cast<uint64_t>(options_.hashes),
        static_cast<uint64_t>(options_.buckets),
        std::bit_cast<uint64_t>(options_.learning_rate),
        std::bit_cast<uint64_t>(options_.initial_gap),
        options_.seed,
        total_,
    };
    const uint64_t sum = checksum(checksum(0, header, kHeader), table_.data(), table_.size());

    struct stat there;
    const bool replaces = stat(path, &there) == 0;
    if (replaces && !S_ISREG(there.st_mode))
        return fail(NEGCOS_STATUS_IO, "%.300s is there, and not a regular file", path);
    if (replaces && access(path, W_OK) != 0) return fail_errno(path);
    const std::string target = destination(path);
    std::string beside;
    File file(create_new(target + ".tmp.", 0666, beside));
    if (file && (!replaces || copy_rights(there, file.get())) && file.write_words(header, kHeader) &&
        file.write_words(table_.data(), table_.size()) && file.write_words(&sum, 1) && file.finish() &&
        std::rename(beside.c_str(), target.c_str()) == 0)
        return NEGCOS_STATUS_OK;
    const int error = errno;
    unlink(beside.c_str());
    errno = error;
    return fail_errno(target.c_str());
}

int32_t Frequency::load(const Kernels& kernels, const char* path, std::optional<Frequency>& loaded) {
    File file(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC));  // a pipe is told, not waited for
    struct stat status;
    if (!file || fstat(file.get(), &status) != 0) return fail_errno(path);
    if (!S_ISREG(status.st_mode)) return fail(NEGCOS_STATUS_IO, "%.300s is not a regular file", path);
    const uint64_t size = static_cast<uint64_t>(status.st_size);
    uint64_t header[kHeader];
    if (size < sizeof header)
        return fail(NEGCOS_STATUS_IO, "%.300s is %llu bytes: no saved estimator, or cut off", path,
                    static_cast<unsigned long long>(size));
    if (!file.read_words(header, kHeader)) return fail_errno(path);
    if (header[0] != kMagic) return fail(NEGCOS_STATUS_IO, "%.300s is no saved estimator", path);
    const uint32_t version = static_cast<uint32_t>(header[1]);
    if (version != kVersion)
        return fail(NEGCOS_STATUS_IO, "%.300s is of version %u, this library knows %u", path, version,
                    static_cast<unsigned>(kVersion));
    negcos_frequency_options options = default_frequency_options();
    options.method = static_cast<int32_t>(header[1] >> 32);
    options.hashes = static_cast<int32_t>(header[2]);
    options.reserved = static_cast<int32_t>(header[2] >> 32);
    options.buckets = static_cast<int64_t>(header[3]);
    options.learning_rate = std::bit_cast<double>(header[4]);
    options.initial_gap = std::bit_cast<double>(header[5]);
    options.seed = header[6];
    if (header[7] > kMost || validate_frequency(options))
        return fail(NEGCOS_STATUS_IO, "%.300s is damaged: its header is out of range", path);
    // Before memory is taken for what the header says.
    if (size != 8 * file_words(options))
        return fail(NEGCOS_STATUS_IO, "%.300s is %llu bytes, expected %llu: it is cut off or damaged", path,
                    static_cast<unsigned long long>(size), 8ull * file_words(options));

    Frequency& frequency = loaded.emplace(kernels, options);
    std::vector<uint64_t>& table = frequency.table_;
    uint64_t sum;
    if (!file.read_words(table.data(), table.size()) || !file.read_words(&sum, 1)) return fail_errno(path);
    frequency.total_ = header[7];
    if (sum != checksum(checksum(0, header, kHeader), table.data(), table.size()))
        return fail(NEGCOS_STATUS_IO, "%.300s is damaged: its checksum does not match", path);
    if (!frequency.in_range()) return fail(NEGCOS_STATUS_IO, "%.300s is damaged: its table is out of range", path);
    return NEGCOS_STATUS_OK;
}

// What no update can leave behind could make an estimate that is not finite, whatever the checksum says.
bool Frequency::in_range() const noexcept {
    if (!streaming(options_))
        return std::all_of(table_.begin(), table_.end(), [&](uint64_t count) { return count <= total_; });
    for (size_t k = 0; k < table_.size(); k += 2) {
        const double average = std::bit_cast<double>(table_[k + 1]);
        if (table_[k] > total_) return false;
        if (table_[k] == 0 ? table_[k + 1] != 0 : !(average >= 1 && average <= static_cast<double>(kMost)))
            return false;
    }
    return true;
}

}  // namespace negcos
