// SPDX-License-Identifier: Apache-2.0
#include "report.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "files.hpp"

namespace package_search {
namespace {

constexpr double weight_of_newest = 0.2;  // in the running loss

double next_running(double running, double loss, bool first) {
    return first ? loss : running + weight_of_newest * (loss - running);
}

}  // namespace

Progress::Progress() : terminal_(isatty(STDOUT_FILENO)) {}

void Progress::update(int64_t step, int64_t steps, double loss) {
    running_ = next_running(running_, loss, losses_.empty());
    losses_.push_back(loss);
    const bool last = step == steps;
    const int64_t tenth = std::max<int64_t>(steps / 10, 1);
    if (terminal_ ? !last && Clock::now() - drawn_ < std::chrono::milliseconds(50) : !last && step % tenth != 0) return;
    drawn_ = Clock::now();
    constexpr int width = 30;
    const int done = static_cast<int>(width * step / steps);
    std::printf("%s  [%.*s%*s] %3d %%  step %lld/%lld  loss %.4f  %4.1f s%s", terminal_ ? "\r" : "", done,
                "##############################", width - done, "", static_cast<int>(100 * step / steps),
                static_cast<long long>(step), static_cast<long long>(steps), running_, seconds(),
                !terminal_ || last ? "\n" : "");
    std::fflush(stdout);
}

void write_npy(const std::string& path, std::span<const float> values, std::size_t rows, std::size_t cols) {
    std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(rows) + ", " +
                         std::to_string(cols) + "), }";
    header.append(127 - 10 - header.size(), ' ');
    header += '\n';
    write_file(path, [&](std::ostream& file) {
        const char start[] = {'\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0, static_cast<char>(header.size()), 0};
        file.write(start, sizeof start);
        file << header;
        file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size_bytes()));
    });
}

bool write_loss_curve(const std::string& folder, const std::vector<double>& losses) {
    write_file(folder + "/loss.tsv", [&](std::ostream& file) {
        file << "step\tloss\trunning\n";
        double running = 0;
        for (std::size_t k = 0; k < losses.size(); ++k) {
            running = next_running(running, losses[k], k == 0);
            file << k + 1 << '\t' << losses[k] << '\t' << running << '\n';
        }
    });
    std::filesystem::remove(folder + "/loss.svg");
    if (std::system("command -v gnuplot > /dev/null 2>&1") != 0) return false;
    setenv("PACKAGE_SEARCH_FOLDER", folder.c_str(), 1);  // whatever the name, no quoting
    std::FILE* gnuplot = popen("cd \"$PACKAGE_SEARCH_FOLDER\" && exec gnuplot 2> /dev/null", "w");
    if (gnuplot == nullptr) return false;
    std::fputs(
        "set terminal svg size 720,420 background rgb 'white' font 'sans-serif,14'\n"
        "set output 'loss.svg'\n"
        "set datafile separator '\\t'\n"
        "set key noautotitle top right\n"
        "set title 'In-batch loss while training'\n"
        "set xlabel 'step'\nset ylabel 'loss (mean over the batch)'\n"
        "set yrange [0:*]\nset autoscale xfixmax\nset grid lc rgb '#dddddd'\nset border 3\nset tics nomirror\n"
        "plot 'loss.tsv' skip 1 using 1:2 with lines lc rgb '#9ecae1' title 'each batch', "
        "'' skip 1 using 1:3 with lines lw 2 lc rgb '#08519c' title 'running mean'\n",
        gnuplot);
    return pclose(gnuplot) == 0 && std::filesystem::exists(folder + "/loss.svg");
}

}  // namespace package_search
