// SPDX-License-Identifier: Apache-2.0
//
// What the user sees: a progress bar, the loss curve as a picture, and arrays for other programs.
#ifndef PACKAGE_SEARCH_REPORT_HPP
#define PACKAGE_SEARCH_REPORT_HPP

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace package_search {

// One line that is drawn over on a terminal; elsewhere a line for each tenth. Nothing fancier is packaged for Debian.
class Progress {
public:
    Progress();
    void update(int64_t step, int64_t steps, double loss);

    double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
    const std::vector<double>& losses() const { return losses_; }

private:
    using Clock = std::chrono::steady_clock;
    bool terminal_;
    Clock::time_point start_ = Clock::now(), drawn_{};
    double running_ = 0;
    std::vector<double> losses_;
};

// rows x cols in NumPy's format, for `negcos loss` and numpy.load.
void write_npy(const std::string& path, std::span<const float> values, std::size_t rows, std::size_t cols);

// Writes FOLDER/loss.tsv, and FOLDER/loss.svg by gnuplot. Returns false when there is no gnuplot.
bool write_loss_curve(const std::string& folder, const std::vector<double>& losses);

}  // namespace package_search

#endif
