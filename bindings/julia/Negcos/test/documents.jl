# SPDX-License-Identifier: Apache-2.0
#
# README's snippets print what README says, and the example learns.

function output_of(f)
    path, io = mktemp()
    redirect_stdout(f, io)
    close(io)
    return read(path, String)
end

# A block of Julia that is followed by its output.
case("documents: README's snippets") do
    text = read(joinpath(dirname(dirname(@__DIR__)), "README.md"), String)
    blocks = collect(eachmatch(r"```julia\n(.*?)```\n\n```text\n(.*?)```"s, text))
    @test length(blocks) >= 2
    for block in blocks
        code, expected = block.captures
        sandbox = Module()
        @test output_of(() -> include_string(sandbox, code, "README.md")) == expected
    end
end

case("documents: the example learns, in seconds") do
    project, example = dirname(@__DIR__), joinpath(dirname(@__DIR__), "examples", "two_tower.jl")
    command = `$(Base.julia_cmd()) --project=$project --startup-file=no $example`
    seconds = @elapsed text = withenv(() -> read(command, String), "JULIA_NUM_THREADS" => "1")
    print(text)
    before, after = (parse(Float64, match(Regex("Recall@10 $when training: ([0-9.]+)"), text)[1]) for when in ("before", "after"))
    @test before < 0.1 && after > 0.6
    @test seconds < 60 # 15 on an idle core
end
