// SPDX-License-Identifier: Apache-2.0
//
// The .npy parser on bytes: what it accepts, and an error for everything else.
#include "command.hpp"

namespace {

using namespace command;
using harness::Random;
using negcos::cli::NpyShape;

TEST_SUITE("cli") {
    TEST_CASE("npy: versions 1 to 3, loose spacing, and no damage from any byte") {
        const std::vector<float> values = {1, 2, 3, 4, 5, 6};
        const std::string good = npy(values, 2, 3);
        CHECK(good.size() % 64 == 24);  // elements start on a 64-byte border
        CHECK(elements<float>(good, 2, 3) == values);

        const std::string text = "{ \"shape\" : (2,3) ,'fortran_order':False, 'descr':'<f4'}";
        const auto with_header = [](int major, const std::string& header, const std::string& data) {
            std::string bytes = "\x93NUMPY";
            bytes += static_cast<char>(major);
            bytes += '\0';
            for (int k = 0; k < (major == 1 ? 2 : 4); ++k) bytes += static_cast<char>(header.size() >> (8 * k));
            return bytes + header + data;
        };
        const std::string data = good.substr(good.size() - 24), vast = "{'fortran_order':False,'descr':'<f4','shape':";
        for (const int major : {1, 2, 3}) {
            for (const std::string& header : {text, text + " \n\n", text + std::string(10000 - text.size(), ' ')})
                CHECK(elements<float>(with_header(major, header, data), 2, 3) == values);
            // What NumPy refuses as well: lines that are indented, a long header, a size beside 0 that cannot be.
            for (const std::string& header :
                 {"\n  " + text, text + "\n ", text + std::string(10001 - text.size(), ' ')})
                CHECK_THROWS_AS(elements<float>(with_header(major, header, data), 2, 3), negcos::cli::NpyError);
            CHECK_THROWS_AS(
                elements<float>(with_header(major, vast + "(0, 2305843009213693952)}", ""), 0, int64_t{1} << 61),
                negcos::cli::NpyError);
        }
        CHECK(elements<float>(npy(std::vector<float>{}, 0, 7), 0, 7).empty());

        // A list: one dimension, or one column.
        const auto list = [](const std::string& bytes) {
            return negcos::cli::parse_npy(std::as_bytes(std::span(bytes)), {NpyType::f4}, NpyShape::list).rows;
        };
        const std::string flat = npy(values);
        CHECK(list(flat) == 6);
        CHECK(list(npy(values, 6, 1)) == 6);
        CHECK(list(npy(std::vector<float>{})) == 0);
        CHECK_THROWS_AS(list(good), negcos::cli::NpyError);
        CHECK_THROWS_AS(list(npy(values, 1, 6)), negcos::cli::NpyError);
        CHECK_THROWS_AS(elements<float>(flat, 6, 1), negcos::cli::NpyError);
        for (const char* shape : {"()    ", "(6,1,1)", "(3, 1)", "(7,)  "}) {
            std::string bytes = flat;
            bytes.replace(bytes.find("(6,)"), std::string(shape).size(), shape);
            CHECK_THROWS_AS(list(bytes), negcos::cli::NpyError);
        }

        // Every byte of the header replaced, and every length: a header or an NpyError, nothing else.
        Random random(5);
        int accepted = 0, refused = 0;
        const auto feed = [&](const std::string& bytes, NpyShape expected) {
            try {
                const auto header =
                    negcos::cli::parse_npy(std::as_bytes(std::span(bytes)), {NpyType::f4, NpyType::i4}, expected);
                REQUIRE(header.offset + static_cast<size_t>(header.rows * header.cols) * 4 == bytes.size());
                if (expected == NpyShape::list) REQUIRE(header.cols == 1);
                ++accepted;
            } catch (const negcos::cli::NpyError&) {
                ++refused;
            }
        };
        for (const auto& [whole, expected] : {std::pair(good, NpyShape::matrix), std::pair(flat, NpyShape::list)}) {
            accepted = refused = 0;
            for (size_t k = 0; k < whole.size() - 24; ++k)
                for (int value = 0; value < 256; ++value) {
                    std::string bytes = whole;
                    bytes[k] = static_cast<char>(value);
                    feed(bytes, expected);
                }
            for (size_t size = 0; size < whole.size(); ++size) feed(whole.substr(0, size), expected);
            for (int k = 0; k < 20000; ++k) {
                std::string bytes = whole;
                for (int change = 0; change < 6; ++change)
                    bytes[static_cast<size_t>(random.below(128))] = static_cast<char>(random.next());
                feed(bytes, expected);
            }
            CHECK(accepted > 100);
            CHECK(refused > 10000);
        }
    }
}

}  // namespace
