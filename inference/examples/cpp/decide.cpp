// Decides states by a released model: ./decide FOLDER [exact|certified] [NEXT_FOLDER] < states.txt
//
// A state is a line: which actions are allowed, a digit 0 or 1 for each or "-" for all of them, and then INDEX:VALUE of what is
// not 0. A line goes out for each: the action, its margin, whether it is certified, the bound, the model, all q-values. An empty
// line swaps to the model in NEXT_FOLDER.
#include "bellwether.hpp"

#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

struct Question {
  std::vector<float> state;
  std::optional<std::vector<std::uint8_t>> mask;
};

Question parse(const std::string &line, const bellwether_status &status) {
  Question question{std::vector<float>(status.width), std::nullopt};
  std::istringstream words(line);
  std::string word;
  words >> word;
  if (word != "-") {
    question.mask.emplace();
    for (char digit : word) {
      question.mask->push_back(digit == '1');
    }
  }
  while (words >> word) {
    const std::size_t colon = word.find(':');
    if (colon == std::string::npos) {
      throw std::runtime_error(word + " is not INDEX:VALUE");
    }
    question.state.at(std::stoul(word)) = std::stof(word.substr(colon + 1));
  }
  return question;
}

void print(const bellwether::Policy &policy, const bellwether::Answer &answer) {
  const bellwether_decision &decision = answer.decision;
  std::printf("%s %.9g %d %.9g ", policy.action_name(decision.action).c_str(), decision.margin, decision.certified,
              decision.bound);
  for (std::uint8_t byte : decision.model_version) {
    std::printf("%02x", byte);
  }
  for (float value : answer.q_values) {
    std::printf(" %.9g", value);
  }
  std::printf("\n");
}

}  // namespace

int main(int argc, char **argv) try {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s FOLDER [exact|certified] [NEXT_FOLDER] < states.txt\n", argv[0]);
    return 1;
  }
  bellwether_options options = {};
  if (argc > 2 && std::string(argv[2]) == "exact") {
    options.precision = BELLWETHER_PRECISION_EXACT;
  }
  bellwether::Policy policy(argv[1], options);
  const bellwether_status status = policy.status();
  bellwether::Decider decider = policy.decider();
  for (std::string line; std::getline(std::cin, line);) {
    if (line.empty() && argc > 3) {
      policy.swap(argv[3]);
      continue;
    }
    const Question question = parse(line, status);
    print(policy, decider.decide(question.state, question.mask ? &*question.mask : nullptr));
  }
} catch (const bellwether::Error &error) {
  std::fprintf(stderr, "%s: %s\n", bellwether::api().error_name(error.code), error.what());
  return 1;
} catch (const std::exception &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
